//! `cargo xtask setup`: installs the tools for building, running and testing portmap, without questions.
//!
//! A [`Step`] is one requirement. It checks whether the requirement is met, and installs the missing tool if that can be
//! automated. The other commands call [`ensure`], which installs the missing tools for their tasks only.

pub mod apt;
pub mod debian;
mod go;
mod kernel;
mod linker;
mod programs;
mod promtool;
mod release;
mod rust_src;
pub mod toolchain;
pub mod wheels;

use std::fs::{self, File};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::screen::{Mark, Screen};
use crate::workspace;

/// Install the tools for building, running and testing portmap
///
/// Checks each tool first and installs only missing tools. For the build: a nightly Rust, its sources and bpf-linker. For the
/// tests: system programs (with apt, as root on Debian and Ubuntu), Go for the control plane, qemu for other kernels, a browser,
/// and promtool. For `lint`: typos and taplo. It can be interrupted and repeated at any time. The other commands install the
/// tools that they need too; `dist` and `image` need some that this command leaves out.
#[derive(clap::Args, Default)]
pub struct SetupArgs {
    /// Only report installed and missing tools; exit with 1 if a tool is missing
    #[arg(long)]
    check: bool,
}

/// The task that needs a tool.
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
    /// Tests of the page in a browser.
    Browser,
    /// Tests of the alerts of the Helm chart.
    Promtool,
    /// Checks of spelling and formats.
    Lint,
    /// Building the release for all architectures.
    Release,
}

/// One requirement of a task: a group of tools, or a property of the user or the kernel.
trait Step {
    /// The name of the requirement in printed lines, for example "bpf-linker".
    fn name(&self) -> &'static str;
    /// The reason for the requirement, which most printed lines have at their end, for example "links the BPF programs".
    fn why(&self) -> &'static str;
    /// The task that has this requirement.
    fn purpose(&self) -> Purpose;
    /// Returns a text for users about the met requirement, for example name and version of a tool. The error has the reason why
    /// the requirement is not met.
    fn check(&self) -> Result<String>;
    /// Meets the requirement, for example by installing the tool. May be repeated, also after an interruption. If this cannot
    /// be automated, the error has instructions for the user.
    fn install(&self) -> Result<()>;
}

/// All steps. Each step comes after the steps that it depends on.
const STEPS: [&dyn Step; 15] = [
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
    &programs::BROWSER,
    &promtool::Promtool,
    &wheels::TYPOS,
    &wheels::TAPLO,
    &release::Targets,
];

/// A requirement that is not met after an attempt to install it.
pub struct Gap {
    /// The task that has the requirement.
    pub purpose: Purpose,
    /// The name of the requirement, and the error of the installation, as one text.
    pub reason: String,
}

/// Checks all requirements, and installs missing tools unless `--check` is given. Returns exit code 1 if some are still not
/// met.
pub fn run(args: &SetupArgs) -> Result<ExitCode> {
    let begin = Instant::now();
    let lock = if args.check { None } else { Some(lock()?) };
    let mut missing = Vec::new();
    for step in STEPS.into_iter().filter(|step| step.purpose() != Purpose::Release) {
        match step.check() {
            Ok(found) => Screen::Stdout.marked(Mark::Done, &format!("{found} (already installed)"), step.why()),
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
        Screen::Stdout.line(&format!("everything is installed ({elapsed:.1} s)"));
        return ExitCode::SUCCESS;
    }
    Screen::Stdout.line(&format!("missing: {} ({elapsed:.1} s)", missing.join(", ")));
    ExitCode::FAILURE
}

/// Installs the missing tools for these tasks, and returns the requirements that are still not met. Prints nothing if all are
/// met from the start.
pub fn ensure(purposes: &[Purpose]) -> Result<Vec<Gap>> {
    let wanted = STEPS.into_iter().filter(|step| purposes.contains(&step.purpose()));
    let absent: Vec<_> = wanted.filter(|step| step.check().is_err()).collect();
    if absent.is_empty() {
        return Ok(Vec::new());
    }
    let _lock = lock()?;
    let mut gaps = Vec::new();
    for step in absent {
        // Another set-up may have installed the tool while this process waited for the lock.
        let Err(reason) = step.check() else { continue };
        if let Err(reason) = install(step, &reason, Screen::Stderr) {
            gaps.push(Gap { purpose: step.purpose(), reason: format!("{}: {reason:#}", step.name()) });
        }
    }
    Ok(gaps)
}

/// Installs the missing tools for these tasks, as [`ensure`]. Fails if a requirement is still not met.
pub fn require(purposes: &[Purpose]) -> Result<()> {
    match ensure(purposes)?.first() {
        None => Ok(()),
        Some(gap) => bail!("{}", gap.reason),
    }
}

/// Installs the tool of a step, checks the result, and prints a line before and after. `reason` is the error of the first
/// check.
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

/// Takes the lock of the set-up, and waits for it if necessary, so that only one process installs tools for this workspace.
/// Dropping the file releases the lock.
pub fn lock() -> Result<File> {
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
