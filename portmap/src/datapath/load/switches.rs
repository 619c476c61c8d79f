//! The options of the programs, from the command line. `constants` turns them into the programs' constants.

use std::path::PathBuf;

use crate::kernel::port_ranges::PortRange;

/// The options of the programs. They cannot change while a program is loaded.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// The clients whose calls are translated.
    pub scope: Scope,
    /// The address that `getpeername()` of a TCP socket returns.
    pub peer_names: PeerNames,
    /// The diagnostics that the programs write.
    pub log: LogLevel,
    /// The treatment of packets of clients outside the node.
    pub outside: Outside,
}

/// The treatment of packets of clients outside the node.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Send packets between a client and a backend on another node on at once, past the node's own routing.
    pub shortcut: bool,
    /// The ports that clients get towards backends.
    pub client_ports: PortRange,
    /// The flows that may be half open in FLOWS, per second; none for those of [`crate::maps::Capacity::half_open_flows`].
    pub half_open: Option<u32>,
}

impl Outside {
    /// The default of [`Self::client_ports`]: below the default ranges of node ports and of a host's own connections.
    pub const CLIENT_PORTS: PortRange = PortRange { first: 1_024, last: 29_999 };
}

impl Default for Outside {
    fn default() -> Self {
        Self { shortcut: true, client_ports: Self::CLIENT_PORTS, half_open: None }
    }
}

/// The address that `getpeername()` returns for a TCP socket that connected to a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PeerNames {
    /// The Service's address and port.
    #[default]
    Service,
    /// The pod's address and port: then the kernel needs no memory for a note on the socket.
    Pod,
}

/// The clients whose calls are translated.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Translate only calls of sockets in the network namespace of the agent.
    pub only_host: bool,
    /// Do not translate calls of processes in or below these cgroups, at most [`portmap_common::EXCLUDED_CGROUPS`].
    pub excluded: Vec<PathBuf>,
}

/// The level of the diagnostics that the programs write. The numbers are those of aya-log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[repr(u8)]
pub enum LogLevel {
    /// No diagnostics, at no cost.
    #[default]
    Off = 0,
    /// Errors that should never happen.
    Error = 1,
    /// Errors, and unusual events.
    Warn = 2,
    /// Errors, unusual events and rare events.
    Info = 3,
    /// Every decision.
    Debug = 4,
}
