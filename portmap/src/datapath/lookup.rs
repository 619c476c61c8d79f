//! Runs the look-up of the BPF programs from user space on the pinned tables, for tests and benchmarks.

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, Pod, include_bytes_aligned,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use portmap_common::{PROBES, Probe, V4, V6};

use super::load;
use crate::maps::{Capacity, pin::Pins};

/// The BPF object of the look-up programs.
static LOOKUP: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lookup"));

/// The loaded look-up programs, two per address family.
#[derive(Debug)]
pub struct Lookup {
    programs: Ebpf,
}

/// An address family with its look-up programs.
pub trait Probed: Copy {
    /// The names of the program without counters, and of the one with counters.
    const PROGRAMS: [&str; 2];
}

impl Probed for V4 {
    const PROGRAMS: [&str; 2] = ["lookup4", "counted4"];
}

impl Probed for V6 {
    const PROGRAMS: [&str; 2] = ["lookup6", "counted6"];
}

impl Lookup {
    /// Loads the look-up programs onto the pinned maps.
    pub fn load(pins: &Pins, capacity: Capacity) -> Result<Self> {
        let mut programs = load::load(LOOKUP, pins, capacity, None)?;
        for name in [V4::PROGRAMS, V6::PROGRAMS].concat() {
            let program = programs.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))?;
            let program: &mut SchedClassifier = program.try_into()?;
            program.load().with_context(|| format!("the kernel rejected the program {name}"))?;
        }
        Ok(Self { programs })
    }

    /// Looks up 1 to [`PROBES`] frontends, `repeat` times, and fills in the answers of the last run. Returns the mean time of
    /// one look-up, in nanoseconds.
    pub fn ask<A: Probed>(&self, probes: &mut [Probe<A>], repeat: u32) -> Result<f64>
    where
        Probe<A>: Pod,
    {
        let [name, _] = A::PROGRAMS;
        self.run(name, probes, repeat)
    }

    /// As [`Self::ask`]. Each run counts each answer in the counters of its Service, as the hooks do.
    pub fn ask_counted<A: Probed>(&self, probes: &mut [Probe<A>], repeat: u32) -> Result<f64>
    where
        Probe<A>: Pod,
    {
        let [_, name] = A::PROGRAMS;
        self.run(name, probes, repeat)
    }

    #[expect(clippy::cast_precision_loss, reason = "there are at most 16 probes")]
    fn run<A: Probed>(&self, name: &str, probes: &mut [Probe<A>], repeat: u32) -> Result<f64>
    where
        Probe<A>: Pod,
    {
        ensure!((1..=PROBES).contains(&probes.len()), "there must be between 1 and {PROBES} probes");
        let program = self.programs.program(name).with_context(|| format!("the program {name} is not loaded"))?;
        let program: &SchedClassifier = program.try_into()?;
        let input = bytes_of(probes).to_vec();
        let mut options = TestRunOptions::new();
        options.data_in = Some(&input);
        options.data_out = Some(bytes_of_mut(probes));
        options.repeat = repeat;
        let result = program.test_run(options)?;
        ensure!(
            result.return_value as usize == probes.len(),
            "{} of {} probes were answered",
            result.return_value,
            probes.len()
        );
        Ok(result.duration.as_secs_f64() * 1e9 / probes.len() as f64)
    }
}

fn bytes_of<T: Pod>(values: &[T]) -> &[u8] {
    // SAFETY: the values are plain data without padding, and the slice covers exactly these values.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_of_mut<T: Pod>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: the slice covers exactly these values, is the only reference to them, and any bytes are values of a `Pod`.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}
