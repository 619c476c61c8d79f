//! Events about single calls and packets, which the programs write while `portmap trace` runs.
//!
//! These layouts have a version of their own, because a trace goes on when an agent replaces the set of maps.

use crate::{Neutral, layout};

/// The version of the layouts in this file: part of the path where the maps of traces are pinned.
pub const TRACE_VERSION: u32 = 1;

/// The length of a process's name in the kernel, in bytes, with the 0 byte at its end (`TASK_COMM_LEN`).
pub const COMMAND: u32 = 16;

/// The one value of `TRACING`: whether the programs write events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tracing {
    /// Time until which programs write events, in nanoseconds of `CLOCK_MONOTONIC`; 0 while nobody traces. The tracer moves it
    /// on. The first program that runs after this time sets it to 0.
    pub until: u64,
    /// The wanted results: a bit for each, `1 <<` [`FORWARDED`] and so on.
    pub results: u64,
}

layout!(Tracing, 16);

/// A result of [`TraceEvent`]: the call or packet goes to a backend.
pub const FORWARDED: u8 = 0;

/// A result of [`TraceEvent`]: no endpoint can be used, so the client gets an error.
pub const REFUSED: u8 = 1;

/// A result of [`TraceEvent`]: a traffic policy or the source ranges drop it, so the client gets no answer.
pub const DROPPED: u8 = 2;

/// A result of [`TraceEvent`]: the Service with this ClusterIP has no such port, so the client gets an error.
pub const NO_SUCH_PORT: u8 = 3;

/// A result of [`TraceEvent`]: no Service has this address of a ServiceCIDR, so the client gets no answer.
pub const NO_SERVICE: u8 = 4;

/// The value of [`TraceEvent::id`] without a service port. No service port has this id.
pub const NO_ID: u64 = u64::MAX;

/// A hook of [`TraceEvent`]: `connect()`.
pub const CONNECT: u8 = 0;

/// A hook of [`TraceEvent`]: a datagram that a process sends to an address.
pub const SENDMSG: u8 = 1;

/// A hook of [`TraceEvent`]: a packet that a network device has received.
pub const PACKET: u8 = 2;

/// An element of `TRACE`: a connection or the first datagram of one, and its result. Ports are in host order. IPv4 addresses are
/// [IPv4-mapped](crate::MAPPED).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceEvent {
    /// The time, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// The id of the process's cgroup: the inode of its directory; 0 for a packet.
    pub cgroup: u64,
    /// The id of the service port, the key of NAMES; [`NO_ID`] if the result concerns none.
    pub id: u64,
    /// The destination that the client asked for.
    pub asked: Neutral,
    /// The backend; zeroes unless the result is [`FORWARDED`].
    pub backend: Neutral,
    /// The client's address; zeroes for calls.
    pub client: Neutral,
    /// The process's id, in the initial namespace of ids; 0 for a packet.
    pub process: u32,
    /// The index of the device that received the packet; 0 for a call.
    pub device: u32,
    /// The port that the client asked for.
    pub asked_port: u16,
    /// The backend's port.
    pub backend_port: u16,
    /// The client's port; 0 for calls.
    pub client_port: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// [`CONNECT`], [`SENDMSG`] or [`PACKET`].
    pub hook: u8,
    /// [`FORWARDED`], [`REFUSED`], [`DROPPED`], [`NO_SUCH_PORT`] or [`NO_SERVICE`].
    pub result: u8,
    /// Always 0.
    pub unused: [u8; 7],
    /// The name of the process, with 0 bytes at its end; empty for a packet.
    pub command: [u8; COMMAND as usize],
}

layout!(TraceEvent, 112);
