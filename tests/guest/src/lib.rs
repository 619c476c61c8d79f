//! The first process (PID 1) of a virtual machine, which runs test suites on the kernel of that machine.
//!
//! `cargo xtask test --kernels` makes the initial ramdisk with this program, and puts the suites on the kernel command line.
#![forbid(unsafe_code)]

mod plan;
mod system;

use std::process::{Child, Command};

use anyhow::{Context as _, Result};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

pub use plan::Plan;

/// Directory of the workspace's programs in the ramdisk. The suites are in its subdirectory `deps`, as in Cargo's target
/// directory.
const PROGRAMS: &str = "/portmap";

/// The last line of output, printed after all suites have run, passed or failed.
pub const CLOSING: &str = "portmap-guest: all suites have run";

/// Runs the suites of the arguments (see [`Plan`]), one after the other. Returns whether all of them passed.
pub fn run(arguments: &[String]) -> Result<bool> {
    system::prepare()?;
    let mut passed = true;
    for argument in arguments {
        passed &= run_suite(&argument.parse()?)?;
    }
    println!("{CLOSING}");
    Ok(passed)
}

fn run_suite(plan: &Plan) -> Result<bool> {
    let path = format!("{PROGRAMS}/deps/{}", plan.suite);
    println!("suite {}", plan.suite);
    // Emulated processors are slow: parallel tests would exceed their time limits.
    let child = Command::new(&path).args(["--test-threads=1", "--color=never"]).args(&plan.filters).spawn();
    await_child(&child.with_context(|| format!("failed to start {path}"))?)
}

/// Waits for the child, and returns whether its exit code is 0. Also collects other children, because PID 1 becomes the parent
/// of orphans.
fn await_child(child: &Child) -> Result<bool> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        let status = wait().context("failed to wait for a suite")?;
        if let WaitStatus::Signaled(_, signal, _) = status
            && status.pid() == Some(pid)
        {
            println!("the suite was killed by {signal}");
            return Ok(false);
        }
        if let WaitStatus::Exited(who, code) = status
            && who == pid
        {
            return Ok(code == 0);
        }
    }
}
