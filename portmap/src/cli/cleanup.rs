//! `portmap cleanup`: removes all pins of portmap and their directories, its filters of `tc`, and nothing else. The kernel frees
//! a program or map when no process holds it any more.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use portmap::datapath::removal;

use super::{NO, PinsArguments, output};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pins: PinsArguments,
    /// Remove the pins of a running agent too, which then fails
    #[arg(long)]
    force: bool,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let pins = self.pins.open()?;
        let root = pins.root().display();
        let has_root = pins.root_exists()?;
        if !has_root {
            output::print(&format!("nothing is pinned under {root}\n"))?;
        }
        let lock = if has_root { pins.lock()? } else { None };
        if has_root && lock.is_none() && !self.force {
            bail!("an agent is running on {root}; stop it first, or use --force");
        }
        let (removed, failed) = removal::clean_up(&pins)?;
        for object in &removed {
            output::print(&format!("removed {object}\n"))?;
        }
        for error in &failed {
            output::error(error);
        }
        Ok(if failed.is_empty() { ExitCode::SUCCESS } else { NO.into() })
    }
}
