//! `portmap cleanup`: removes all pins of portmap and their directories, its filters of `tc`, and nothing else. The kernel frees
//! a program or map when no process holds it any more.

mod drain;

use std::{process::ExitCode, time::Duration};

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
    /// Wait for the end of the TCP connections of clients outside the node, for at most this time; leave new connections to
    /// another proxy meanwhile [without a value: 3600]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "3600")]
    #[arg(conflicts_with = "force")]
    drain: Option<u32>,
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
        if let Some(seconds) = self.drain.filter(|_| has_root) {
            pins.expect()?;
            drain::drain(&pins, Duration::from_secs(seconds.into()))?;
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
