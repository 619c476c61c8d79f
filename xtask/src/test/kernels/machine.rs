//! A virtual machine: qemu without hardware support, which any machine can run, in its own process.

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

/// How long a machine may take for all of its suites.
const PATIENCE: Duration = Duration::from_mins(90);
/// How often a machine that crashed is booted again. The simulated processor is not without faults.
const REPEATS: u32 = 1;
/// How much slower than this machine it may be.
const SLOWNESS: u32 = 10;
const STRESS_SECONDS: u32 = 20;
/// The suite that shows what happens at the same time. It has a machine of its own, with two processors: where there are more of
/// them than this machine has, every suite is slower.
const RACING: &str = "table_stress";
const MEMORY: &str = "1536";

/// A kernel about to be booted.
pub struct Machine {
    series: &'static Series,
    /// For people.
    title: String,
    processors: u32,
    kernel: PathBuf,
    ramdisk: PathBuf,
    plans: Vec<String>,
    log: PathBuf,
}

/// How a machine ended, by qemu's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It said that all its suites passed.
    Passed,
    /// It said that one of them failed.
    Failed,
    /// It said nothing: a panic, or a plain shutdown.
    Crashed,
    /// It was ended because it took too long.
    Hung,
    /// qemu itself failed.
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
    /// Those that a kernel's suites take. What each says goes into a file beside the kernels.
    pub fn all(series: &'static Series, kernel: &Kernel, ramdisk: &Path, plans: Vec<String>) -> Result<Vec<Self>> {
        let (racing, taking_turns): (Vec<_>, Vec<_>) = plans.into_iter().partition(|plan| plan.starts_with(RACING));
        let groups = [(taking_turns, 1, String::new()), (racing, 2, format!("-{RACING}"))];
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

    /// Boots it until its suites have run.
    pub fn run(&self) -> Result<Report> {
        let start = Instant::now();
        let mut end = self.boot()?;
        for _ in 0..REPEATS {
            if !matches!(end, End::Crashed | End::Hung) {
                break;
            }
            let kept = self.log.with_extension("crash.log");
            fs::rename(&self.log, &kept).with_context(|| format!("failed to keep {}", kept.display()))?;
            Screen::Stderr.line(&format!("kernel {} {end:?}, see {}; again", self.title, kept.display()));
            end = self.boot()?;
        }
        let said = fs::read(&self.log).with_context(|| format!("failed to read {}", self.log.display()))?;
        Ok(Report::new(self.title.clone(), end, String::from_utf8_lossy(&said).into_owned(), self.plans.len(), start.elapsed()))
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

    /// Words with a `=` that the kernel does not know become the first process' environment, those behind `--` its arguments.
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
    fn only_what_the_guest_said_counts() {
        let codes = [Some(33), Some(35), Some(0), Some(124), Some(1), None];
        let ends = [End::Passed, End::Failed, End::Crashed, End::Hung, End::Broken, End::Broken];
        assert_eq!(codes.map(End::of), ends);
    }
}
