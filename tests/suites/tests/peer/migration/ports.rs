//! The port of the node behind which a backend on another node sees a client. kube-proxy's connections and portmap's have such
//! ports, and neither proxy knows those of the other.

use anyhow::{Context as _, Result, ensure};
use portmap_harness::dual_stack::Via;
use portmap_harness::process::Process;
use portmap_harness::topology::addresses;

use super::open::Open;
use crate::series::Target;

/// The first of the ports that portmap uses, and their number.
const FIRST: u16 = 1_024;
const COUNT: u16 = 28_976;

/// Opens connections through kube-proxy until one has a port that portmap uses, too.
pub fn open_with_port_of_portmap<'a>(process: &'a Process, target: &Target) -> Result<Open<'a>> {
    for _ in 0..100 {
        let open = Open::new(process, target)?;
        if (FIRST..FIRST + COUNT).contains(&open.answer.client.port()) {
            return Ok(open);
        }
    }
    anyhow::bail!("kube-proxy has not used a port below {}", FIRST + COUNT)
}

/// Opens a connection through portmap to the same backend, for which portmap first tries the port of `other`.
pub fn open_beside<'a>(process: &'a Process, other: &Open<'_>) -> Result<Open<'a>> {
    let taken = other.answer.client.port();
    let offset = taken - FIRST;
    let own = if offset < FIRST { offset + COUNT } else { offset };
    let socket = process.open_for(other.target.address, other.target.protocol)?;
    socket.bind(addresses::CLIENT.at(Via::V4, own)).with_context(|| format!("failed to bind to port {own}"))?;
    let open = Open::through(socket, &other.target).with_context(|| format!("beside the port {taken}"))?;
    ensure!(open.answer.client.port() != taken, "two connections have the port {taken}");
    Ok(open)
}
