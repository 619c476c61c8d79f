//! A running `portmap-pod serve` or `portmap-pod dns`, the server of a pod or of the node.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::families::Families;
use crate::listen::Listen;
use crate::pod_server::READY;

/// A running server. Dropping this kills it. It also ends with this process, which holds the other end of its standard input.
///
/// `PR_SET_PDEATHSIG` is not used: it acts when the starting *thread* ends, and a server may run longer than that thread.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Starts the server, and returns when all ports are open.
    pub(super) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let stderr = File::options().create(true).append(true).open(log).context("failed to open the server's log")?;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).spawn();
        let mut server = Self(child.context("failed to run portmap-pod")?);
        let log = || format!("the server's log: {}", fs::read_to_string(log).unwrap_or_default().trim_end());
        server.await_ready().with_context(log)?;
        Ok(server)
    }

    fn await_ready(&mut self) -> Result<()> {
        let stdout = self.0.stdout.take().context("the server has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("failed to read the server's standard output")?;
        if line.trim_end() != READY {
            bail!("the server ended before it was ready");
        }
        Ok(())
    }
}

/// The arguments of `portmap-pod serve` for this name and these ports. The server listens in all given families.
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
            eprintln!("warning: failed to kill a pod's server: {error}");
        }
    }
}
