//! Boots a virtual machine with qemu. It uses no hardware acceleration, so that it runs on any machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::fetch::{self, Kernel};
use super::report::Report;
use super::series::Series;
use crate::program;
use crate::screen::Screen;

/// Time limit of one boot of a machine, for all of its suites.
const PATIENCE: Duration = Duration::from_mins(90);
/// Number of times that a crashed or hung machine is booted again, because qemu's processor emulation has faults.
const REPEATS: u32 = 1;
/// The factor by which the tests' time limits are extended in a virtual machine.
const SLOWNESS: u32 = 10;
/// Duration of each stress test.
const STRESS_SECONDS: u32 = 20;
/// The suite that needs parallel processors. It runs in a separate machine with two. The other suites get one processor,
/// because more emulated processors than real ones would slow every suite down.
const PARALLEL_SUITE: &str = "table_stress";
/// Memory of a virtual machine in MiB. The suite of clients outside runs eight agents, each with maps of some 200 MiB.
const MEMORY: &str = "4096";

/// A virtual machine before its start.
pub struct Machine {
    series: &'static Series,
    /// The name of the series and the kernel's release, for printed lines.
    title: String,
    processors: u32,
    kernel: PathBuf,
    ramdisk: PathBuf,
    plans: Vec<String>,
    log: PathBuf,
}

/// The end of a machine, from qemu's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// portmap-guest reported that all suites passed.
    Passed,
    /// portmap-guest reported that a suite failed, or that it could not run the suites.
    Failed,
    /// The machine ended without a report: a kernel panic, or a shutdown.
    Crashed,
    /// The machine reached its time limit, and was ended.
    Hung,
    /// Any other exit code or a signal: qemu failed.
    Broken,
}

impl End {
    fn of(code: Option<i32>) -> Self {
        match code {
            Some(33) => Self::Passed,
            Some(35) => Self::Failed,
            Some(0) => Self::Crashed,
            Some(124) => Self::Hung,
            _ => Self::Broken,
        }
    }
}

impl Machine {
    /// The machines for a kernel's suites: one for `table_stress`, and one for all other suites. A machine without suites is
    /// left out. Each writes its output to a log file in the directory of the kernels.
    pub fn all(series: &'static Series, kernel: &Kernel, ramdisk: &Path, plans: Vec<String>) -> Result<Vec<Self>> {
        let (parallel, others): (Vec<_>, Vec<_>) = plans.into_iter().partition(|plan| plan.starts_with(PARALLEL_SUITE));
        let groups = [(others, 1, String::new()), (parallel, 2, format!("-{PARALLEL_SUITE}"))];
        let groups = groups.into_iter().filter(|(plans, ..)| !plans.is_empty());
        let machine = |(plans, processors, suffix): (Vec<String>, u32, String)| {
            let name = format!("{}{suffix}", series.name);
            Ok(Self {
                series,
                title: format!("{name} ({})", kernel.release),
                processors,
                kernel: kernel.image.clone(),
                ramdisk: ramdisk.into(),
                plans,
                log: fetch::directory()?.join(format!("{name}.log")),
            })
        };
        groups.map(machine).collect()
    }

    /// The number of suites that the machine runs.
    pub fn suites(&self) -> usize {
        self.plans.len()
    }

    /// Boots the machine, waits for its end, and returns the report. A crashed or hung machine is booted once more; the log of
    /// the first boot is kept under another name.
    pub fn run(&self) -> Result<Report> {
        let start = Instant::now();
        let mut end = self.boot()?;
        for _ in 0..REPEATS {
            if !matches!(end, End::Crashed | End::Hung) {
                break;
            }
            let kept = self.log.with_extension("crash.log");
            fs::rename(&self.log, &kept).with_context(|| format!("failed to keep {}", kept.display()))?;
            Screen::Stderr.line(&format!("kernel {}: {end:?}; booting it again; its log is {}", self.title, kept.display()));
            end = self.boot()?;
        }
        let log = fs::read(&self.log).with_context(|| format!("failed to read {}", self.log.display()))?;
        Ok(Report::new(self.title.clone(), end, String::from_utf8_lossy(&log).into_owned(), self.plans.len(), start.elapsed()))
    }

    fn boot(&self) -> Result<End> {
        let log = File::create(&self.log).with_context(|| format!("failed to create {}", self.log.display()))?;
        let status = self.command().stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log).status();
        Ok(End::of(status.context("failed to start qemu")?.code()))
    }

    fn command(&self) -> Command {
        let mut qemu = program::command("timeout");
        qemu.args(["--foreground", &PATIENCE.as_secs().to_string(), "qemu-system-x86_64"]);
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", self.series.processor, "-m", MEMORY]);
        qemu.args(["-smp", &self.processors.to_string()]);
        qemu.args(["-nographic", "-nodefaults", "-serial", "stdio", "-no-reboot", "-net", "none"]);
        qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
        qemu.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.ramdisk);
        qemu.arg("-append").arg(self.kernel_command_line());
        qemu
    }

    /// The kernel command line. Unknown parameters with `=` become environment variables of PID 1. Words after `--` become its
    /// arguments.
    fn kernel_command_line(&self) -> String {
        let Self { series, plans, .. } = self;
        format!(
            "console=ttyS0 quiet panic=-1 {} PORTMAP_PATIENCE={SLOWNESS} PORTMAP_STRESS_SECONDS={STRESS_SECONDS} \
             PORTMAP_OWN_CLOCK=1 RUST_BACKTRACE=0 PATH=/usr/sbin:/usr/bin -- {}",
            series.parameters,
            plans.join(" ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_converted() {
        let codes = [Some(33), Some(35), Some(0), Some(124), Some(1), None];
        let ends = [End::Passed, End::Failed, End::Crashed, End::Hung, End::Broken, End::Broken];
        assert_eq!(codes.map(End::of), ends);
    }
}
