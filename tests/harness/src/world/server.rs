//! A running `portmap-pod` that serves somebody.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::families::Families;
use crate::listen::Listen;
use crate::pod_server::READY;

/// Killed when dropped. It also ends by itself when this process does: it reads from a pipe that is then closed.
///
/// `PR_SET_PDEATHSIG` would not do: it is about the thread that started the child, and a test's world may outlive its thread.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Returns when all ports are open.
    pub(super) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let stderr = File::options().create(true).append(true).open(log).context("failed to open its log")?;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).spawn();
        let mut server = Self(child.context("failed to run portmap-pod")?);
        let says = || format!("its log says: {}", fs::read_to_string(log).unwrap_or_default().trim_end());
        server.await_ready().with_context(says)?;
        Ok(server)
    }

    fn await_ready(&mut self) -> Result<()> {
        let stdout = self.0.stdout.take().context("it has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("failed to read its standard output")?;
        if line.trim_end() != READY {
            bail!("it ended before it was ready");
        }
        Ok(())
    }
}

/// The arguments for answering with a name, on all families of the world.
pub(super) fn serve(name: &str, families: Families, listens: &[Listen]) -> Vec<String> {
    let mut arguments = ["serve", "--name", name].map(str::to_owned).to_vec();
    if families == Families::V4 {
        arguments.extend(["--address", "0.0.0.0"].map(str::to_owned));
    }
    arguments.extend(listens.iter().flat_map(|listen| ["--listen".to_owned(), listen.to_string()]));
    arguments
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        if let Err(error) = ended {
            eprintln!("warning: failed to end a pod's server: {error}");
        }
    }
}
