//! `cargo xtask setup`: everything that building, running and testing portmap needs, put there without a person.
//!
//! A [`Step`] is one thing that must be there. Steps know how to check for it and, where that can be automated, how to install it. The
//! other commands come through [`ensure`], which only checks when nothing is missing.

mod apt;
pub mod debian;
mod go;
mod kernel;
mod linker;
mod programs;
mod rust_src;
pub mod toolchain;

use std::fs::{self, File};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::screen::{Mark, Screen};
use crate::workspace;

/// Install what building, running and testing portmap needs
///
/// Checks each thing first and installs only what is missing: a nightly Rust and its sources for the BPF programs, bpf-linker, system
/// programs (with apt, as root on Debian and Ubuntu), Go for the test control plane, qemu for the tests on other
/// kernels. Can be interrupted and repeated at any time. The
/// other commands do the same by themselves.
#[derive(clap::Args)]
pub struct SetupArgs {
    /// Only say what is there and what is missing; exit with 1 if anything is missing
    #[arg(long)]
    check: bool,
}

/// What a step's result is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Compiling portmap.
    Build,
    /// Running portmap and its tests on this machine's kernel.
    Kernel,
    /// Tests against the real API server.
    ControlPlane,
    /// Tests on other kernels, in virtual machines.
    Machines,
}

/// One thing that must be there.
trait Step {
    /// The thing.
    fn name(&self) -> &'static str;
    /// Why it is needed.
    fn why(&self) -> &'static str;
    /// What for.
    fn purpose(&self) -> Purpose;
    /// What is there, as people call it with its version; an error says what is missing.
    fn check(&self) -> Result<String>;
    /// Puts it there. Safe to repeat, also after an interruption. Fails with what to do where it cannot be automated.
    fn install(&self) -> Result<()>;
}

/// In the order in which they need each other.
const STEPS: [&dyn Step; 10] = [
    &programs::SYSTEM,
    &toolchain::Nightly,
    &rust_src::RustSrc,
    &linker::BpfLinker,
    &go::Go,
    &kernel::RootUser,
    &kernel::CgroupV2,
    &kernel::Btf,
    &kernel::Bpffs,
    &programs::MACHINES,
];

/// A thing that is missing.
pub struct Gap {
    /// What it was needed for.
    pub purpose: Purpose,
    /// What is wrong with it, beginning with its name.
    pub reason: String,
}

/// The command itself.
pub fn run(args: &SetupArgs) -> Result<ExitCode> {
    let begin = Instant::now();
    let lock = if args.check { None } else { Some(lock()?) };
    let mut missing = Vec::new();
    for step in STEPS {
        match step.check() {
            Ok(found) => Screen::Stdout.marked(Mark::Done, &format!("{found} (already there)"), step.why()),
            Err(reason) if args.check => {
                Screen::Stdout.marked(Mark::Missing, &format!("{}: {reason:#}", step.name()), step.why());
                missing.push(step.name());
            }
            Err(reason) => missing.extend(install(step, &reason, Screen::Stdout).err().map(|_| step.name())),
        }
    }
    drop(lock);
    Ok(conclude(&missing, begin))
}

fn conclude(missing: &[&str], begin: Instant) -> ExitCode {
    let elapsed = begin.elapsed().as_secs_f32();
    if missing.is_empty() {
        Screen::Stdout.line(&format!("everything is there ({elapsed:.1} s)"));
        return ExitCode::SUCCESS;
    }
    Screen::Stdout.line(&format!("missing: {} ({elapsed:.1} s)", missing.join(", ")));
    ExitCode::FAILURE
}

/// Installs what is missing for these purposes and returns what still is. Quiet and quick when all is there.
pub fn ensure(purposes: &[Purpose]) -> Result<Vec<Gap>> {
    let wanted = STEPS.into_iter().filter(|step| purposes.contains(&step.purpose()));
    let absent: Vec<_> = wanted.filter(|step| step.check().is_err()).collect();
    if absent.is_empty() {
        return Ok(Vec::new());
    }
    let _lock = lock()?;
    let mut gaps = Vec::new();
    for step in absent {
        // Another set-up may have put it there while this one waited for the lock.
        let Err(reason) = step.check() else { continue };
        if let Err(reason) = install(step, &reason, Screen::Stderr) {
            gaps.push(Gap { purpose: step.purpose(), reason: format!("{}: {reason:#}", step.name()) });
        }
    }
    Ok(gaps)
}

/// As [`ensure`], for those who cannot do without.
pub fn require(purposes: &[Purpose]) -> Result<()> {
    match ensure(purposes)?.first() {
        None => Ok(()),
        Some(gap) => bail!("{}", gap.reason),
    }
}

/// Installs, checks the result, and says so.
fn install(step: &dyn Step, reason: &anyhow::Error, screen: Screen) -> Result<()> {
    screen.marked(Mark::Doing, &format!("{}: {reason:#}", step.name()), step.why());
    let begin = Instant::now();
    let result = step.install().and_then(|()| step.check());
    let elapsed = begin.elapsed().as_secs_f32();
    match result {
        Ok(found) => {
            screen.marked(Mark::Done, &format!("{found} (installed in {elapsed:.1} s)"), step.why());
            Ok(())
        }
        Err(error) => {
            screen.marked(Mark::Missing, &format!("{}: {error:#}", step.name()), &format!("after {elapsed:.1} s"));
            Err(error)
        }
    }
}

/// Lets one set-up at a time work for this workspace, until the file is dropped.
fn lock() -> Result<File> {
    let path = workspace::tools_dir()?.join("setup.lock");
    let dir = path.parent().unwrap_or(&path);
    fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let file = File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
    if file.try_lock().is_err() {
        Screen::Stderr.line("waiting for another set-up to finish");
        file.lock().with_context(|| format!("failed to lock {}", path.display()))?;
    }
    Ok(file)
}
