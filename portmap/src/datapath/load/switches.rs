//! The options of the programs.

use std::path::PathBuf;

/// What the programs are told before they are verified.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// Whose calls are translated.
    pub scope: Scope,
    /// What TCP sockets are shown as their peer.
    pub peer_names: PeerNames,
    /// Which diagnostics the programs write.
    pub log: LogLevel,
}

/// What `getpeername()` of a TCP socket shows that was connected to a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PeerNames {
    /// The Service that it asked for.
    #[default]
    Service,
    /// The pod that it is connected to: `connect()` then takes no memory of the kernel's.
    Pod,
}

/// Whose calls are translated.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only those of processes in the host's network namespace: the agent's.
    pub only_host: bool,
    /// Not those of processes in or below these cgroups.
    pub excluded: Vec<PathBuf>,
}

/// The least important diagnostics that the programs write. The numbers are those of aya-log.
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
