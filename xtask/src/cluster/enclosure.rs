//! The namespaces around the whole cluster: mounts, processes, and the network of the control plane.
//!
//! The network has no route to this machine. The root file system of this machine is read-only.

pub mod init;

use std::env;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::layout::SEARCH_PATH;
use super::process::{READY, SUBCOMMAND};
use crate::program;

/// The bridge that joins the nodes and the control plane.
pub const BRIDGE: &str = "nodes";

/// The running namespaces. Dropping this kills all processes in them.
#[derive(Debug)]
pub struct Enclosure {
    entrance: Child,
    init: Pid,
    /// Stays open, because the init process must not fail to write.
    _output: BufReader<ChildStdout>,
}

impl Enclosure {
    /// Makes the namespaces.
    pub fn start() -> Result<Self> {
        let program = env::current_exe().context("failed to get the path of this program")?;
        let mut command = Command::new(program);
        command.args([SUBCOMMAND, "enclosure"]).env("PATH", program::search_path());
        isolate_from_terminal(&mut command);
        let mut entrance = command.stdout(Stdio::piped()).spawn().context("failed to start this program again")?;
        let mut output = BufReader::new(entrance.stdout.take().context("a child process has no standard output")?);
        let mut line = || {
            let mut line = String::new();
            output.read_line(&mut line).map(|_| line.trim_end().to_owned()).context("failed to read from a child process")
        };
        // The two processes print one line each, in any order.
        let lines = [line()?, line()?];
        let init = lines.iter().find_map(|line| line.parse().ok()).map(Pid::from_raw);
        let init = init.context("failed to make the cluster's namespaces")?;
        let enclosure = Self { entrance, init, _output: output };
        ensure!(lines.iter().any(|line| line == READY), "failed to set up the cluster's namespaces");
        Ok(enclosure)
    }

    /// A command that runs a program in the namespaces, with a new environment. Paths are those inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = program::command("nsenter");
        command.args(["--mount", "--net", "--pid", "--target", &self.init.to_string(), "--", program]);
        command.env_clear().env("PATH", SEARCH_PATH).env("HOME", "/tmp");
        isolate_from_terminal(&mut command);
        command
    }
}

/// Keeps Ctrl-C away from a child process, and gives it no input.
fn isolate_from_terminal(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    command.process_group(0).stdin(Stdio::null());
}

impl Drop for Enclosure {
    fn drop(&mut self) {
        // The entrance ends after the init process, and that ends after all others.
        if let Err(error) = kill(self.init, Signal::SIGKILL) {
            eprintln!("failed to end the cluster's processes: {error}");
        }
        self.entrance.wait().ok();
    }
}
