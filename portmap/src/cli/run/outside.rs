//! The arguments of `portmap run` for packets of clients outside the node, other than those for devices.

use clap::{Args, ValueEnum};
use portmap::{
    agent::{ClientPorts, Sysctls},
    datapath::load::Outside,
    kernel::port_ranges::PortRange,
};

use crate::cli::{NODE_PORTS, port_range};

#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "shown on a terminal")]
pub struct OutsideArguments {
    /// Send packets between an outside client and a pod of another node on at once, past this node's routing, netfilter and
    /// policies; off before kernel 5.12
    #[arg(long, value_name = "SWITCH", value_enum, default_value_t = Shortcut::On)]
    north_south_shortcut: Shortcut,
    /// Ports that outside clients get towards pods; this node must not use them for its own connections
    #[arg(long, value_name = "FIRST-LAST", value_parser = port_range, default_value_t = Outside::CLIENT_PORTS)]
    client_ports: PortRange,
    /// Node ports of the cluster, as the API server's flag of this name has them
    #[arg(long, value_name = "FIRST-LAST", value_parser = port_range, default_value_t = NODE_PORTS)]
    service_node_port_range: PortRange,
    /// Add the --client-ports to net.ipv4.ip_local_reserved_ports, if this node's own connections would use them
    #[arg(long)]
    manage_sysctls: bool,
    /// Let this many flows be half open in FLOWS, per second, for measurements
    #[cfg(feature = "testing")]
    #[arg(long, hide = true, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=2_147_483_647))]
    half_open_flows: Option<u32>,
}

/// The argument of `--north-south-shortcut`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shortcut {
    On,
    Off,
}

impl OutsideArguments {
    pub fn switches(&self) -> Outside {
        Outside {
            shortcut: self.north_south_shortcut == Shortcut::On,
            client_ports: self.client_ports,
            #[cfg(feature = "testing")]
            half_open: self.half_open_flows,
            #[cfg(not(feature = "testing"))]
            half_open: None,
        }
    }

    pub fn client_ports(&self) -> ClientPorts {
        ClientPorts {
            range: self.client_ports,
            node_ports: self.service_node_port_range,
            sysctls: if self.manage_sysctls { Sysctls::Managed } else { Sysctls::Left },
        }
    }
}
