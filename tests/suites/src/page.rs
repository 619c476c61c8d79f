//! A running `portmap page`.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use portmap_harness::patience::patience;
use portmap_harness::running::Running;

use crate::command;

/// The time limit for the start of the page, before scaling by [`patience`].
const PATIENCE: Duration = Duration::from_secs(20);

/// A running command. Dropping it kills the process.
pub struct Page {
    _process: Running,
    /// The address of the page, with a slash at its end.
    pub url: String,
}

impl Page {
    /// Starts a command that ends in the path of portmap, with these arguments of `portmap page`. Returns when the page is served.
    pub fn start(mut portmap: Command, arguments: &[&str]) -> Result<Self> {
        portmap.args(["page", "--port", "0"]).args(arguments);
        let mut process = Running(portmap.stdout(Stdio::piped()).spawn().context("failed to run portmap")?);
        let lines = command::lines(process.stdout.take().context("no standard output")?);
        let line = lines.recv_timeout(patience(PATIENCE)).context("the page does not start")?;
        let url = line.split([' ', ';']).find(|word| word.starts_with("http://")).context("no address")?.to_owned();
        Ok(Self { _process: process, url })
    }
}
