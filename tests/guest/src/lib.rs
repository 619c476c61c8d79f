//! What a virtual machine does that was booted to run suites on its kernel: the first process of an initial ramdisk.
//!
//! `cargo xtask test --kernels` makes the ramdisk, and names the suites on the kernel's command line.
#![forbid(unsafe_code)]

mod plan;
mod system;

use std::process::{Child, Command};

use anyhow::{Context as _, Result};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

pub use plan::Plan;

/// Where the ramdisk has this workspace's programs; the suites are in `deps`, as cargo has them.
const PROGRAMS: &str = "/portmap";

/// The line that says that every suite has run, whatever came of it.
pub const CLOSING: &str = "portmap-guest: all suites have run";

/// Runs the suites that the arguments name (see [`Plan`]), one after the other; true if all of them passed.
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
    // The processors are simulated: tests side by side would only meet their deadlines.
    let child = Command::new(&path).args(["--test-threads=1", "--color=never"]).args(&plan.filters).spawn();
    await_child(&child.with_context(|| format!("failed to start {path}"))?)
}

/// The first process inherits every orphan, and has to wait for them too.
fn await_child(child: &Child) -> Result<bool> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        let status = wait().context("failed to wait for a suite")?;
        if let WaitStatus::Signaled(_, signal, _) = status
            && status.pid() == Some(pid)
        {
            println!("the suite was ended by {signal}");
            return Ok(false);
        }
        if let WaitStatus::Exited(who, code) = status
            && who == pid
        {
            return Ok(code == 0);
        }
    }
}
