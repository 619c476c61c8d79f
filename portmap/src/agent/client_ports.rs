//! The check of the ports that clients outside the node get towards backends, before the programs are loaded.

use anyhow::{Result, ensure};

use super::{ClientPorts, Sysctls};
use crate::kernel::port_ranges::{self, PortRange};

/// Fails if the range has node ports: an answer to a hidden client would look like a connection to a node port.
///
/// If the node's own connections may use the range, adds it to the reserved ports, or warns: a connection to a pod could then
/// be taken for that of a client.
pub fn check(client_ports: ClientPorts) -> Result<()> {
    let ClientPorts { range, node_ports, sysctls } = client_ports;
    ensure!(
        !range.overlaps(node_ports),
        "--client-ports {range} has node ports of --service-node-port-range {node_ports}; choose --client-ports without them"
    );
    if let Err(error) = keep_from_own_connections(range, sysctls) {
        tracing::warn!("cannot tell whether this node's own connections use the ports {range} of outside clients: {error:#}");
    }
    Ok(())
}

fn keep_from_own_connections(range: PortRange, sysctls: Sysctls) -> Result<()> {
    let local = port_ranges::local()?;
    if !range.overlaps(local) || port_ranges::is_reserved(range)? {
        return Ok(());
    }
    match sysctls {
        Sysctls::Managed => {
            port_ranges::reserve(range)?;
            tracing::info!("added {range} to net.ipv4.ip_local_reserved_ports: outside clients get these ports");
        }
        Sysctls::Left => tracing::warn!(
            "net.ipv4.ip_local_port_range is {local}, and outside clients get the ports {range}: a connection of this node to a \
             pod could be taken for a client's; add {range} to net.ipv4.ip_local_reserved_ports, or run with --manage-sysctls"
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ports_are_no_ports_of_clients() {
        let at = |first, last| {
            let node_ports = PortRange { first: 30_000, last: 32_767 };
            check(ClientPorts { range: PortRange { first, last }, node_ports, sysctls: Sysctls::Left }).is_ok()
        };
        assert!(at(1_024, 29_999));
        assert!(!at(1_024, 30_000));
        assert!(!at(32_767, 40_000));
    }
}
