//! The demo as its readers run it: recorded, through a pipe, and step by step in a terminal.
//!
//! The demo itself verifies each step, and that it leaves nothing behind. Its exit code says so.
//!
//! Needs: root and BPF.

mod recording;
mod terminal;
mod usage;

use std::process::Command;

use anyhow::{Context as _, Result};
use portmap_harness::world::program;

/// The exit code after SIGINT, if the demo has removed everything.
const INTERRUPTED: i32 = 130;

/// A command for the demo, without variables that change its output.
fn demo() -> Result<Command> {
    let path = program::find("portmap-demo").context("build the demo first: cargo build --release --bins")?;
    let mut command = Command::new(path);
    command.env_remove("NO_COLOR");
    Ok(command)
}
