//! Open connections and UDP sockets.

use anyhow::{Context as _, Result, ensure};
use portmap_harness::process::{Answer, Process, Socket};

use crate::series::Target;

/// An open connection, or connected UDP socket, and its first answer.
pub struct Open<'a> {
    pub socket: Socket<'a>,
    pub target: Target,
    pub answer: Answer,
}

impl<'a> Open<'a> {
    /// Connects to a target, and expects the answer of its server.
    pub fn new(process: &'a Process, target: &Target) -> Result<Self> {
        let socket = process.open_for(target.address, target.protocol)?;
        Self::through(socket, target)
    }

    /// As [`Self::new`], through an open socket.
    pub fn through(socket: Socket<'a>, target: &Target) -> Result<Self> {
        socket.connect(target.address).with_context(|| format!("{target:?}"))?;
        let answer = socket.converse().with_context(|| format!("{target:?}"))?;
        ensure!(answer.who == target.server, "{target:?}: {answer:?}");
        Ok(Self { socket, target: target.clone(), answer })
    }

    /// Expects another answer of the same server.
    pub fn check(&self) -> Result<()> {
        let answer = self.socket.converse().with_context(|| format!("{:?}", self.target))?;
        ensure!(answer.who == self.target.server, "{:?}: {answer:?}", self.target);
        Ok(())
    }
}

/// Connects to each target.
pub fn open<'a>(process: &'a Process, targets: &[Target]) -> Result<Vec<Open<'a>>> {
    targets.iter().map(|target| Open::new(process, target)).collect()
}

/// Expects another answer through each connection.
pub fn check(connections: &[Open<'_>]) -> Result<()> {
    connections.iter().try_for_each(Open::check)
}
