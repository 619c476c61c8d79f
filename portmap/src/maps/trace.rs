//! The events of `portmap trace`: starts and ends tracing, and reads the events that the programs write.
//!
//! One process traces at a time, because each event is read once. The programs stop by themselves soon after its end.

pub mod names;

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use portmap_common::trace::{self, TraceEvent, Tracing};

use super::{
    bpf::open,
    encode,
    pin::{Lock, Pins},
};
use crate::{
    kernel::{bpf, uptime},
    model::Frontend,
};

/// The time for which programs go on to write events after [`Tracer::keep`]. Longer than any pause of a tracer that runs.
const LASTING: Duration = Duration::from_secs(5);

/// The effect on a client's connection or datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Effect {
    /// It goes to a backend.
    Forwarded = trace::FORWARDED,
    /// No endpoint can be used: the client gets an error.
    Refused = trace::REFUSED,
    /// A traffic policy or the source ranges drop it.
    Dropped = trace::DROPPED,
    /// The Service with this ClusterIP has no such port: the client gets an error.
    NoSuchPort = trace::NO_SUCH_PORT,
    /// No Service has this address of a ServiceCIDR: it is dropped.
    NoService = trace::NO_SERVICE,
}

/// The place at which a program saw the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A system call on this node.
    Call {
        /// `connect` or `sendmsg`.
        call: &'static str,
        /// The process's id, in the initial namespace of ids.
        process: u32,
        /// The process's name.
        command: String,
        /// The id of the process's cgroup: the inode of its directory.
        cgroup: u64,
    },
    /// A packet of a client outside the node.
    Packet {
        /// The client's address and port.
        client: SocketAddr,
        /// The index of the device that received the packet.
        device: u32,
    },
}

/// A traced connection, or the first datagram of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The time since boot, see [`uptime::monotonic`].
    pub time: Duration,
    /// The place at which a program saw the client.
    pub origin: Origin,
    /// The destination that the client asked for.
    pub asked: Frontend,
    /// The id of the service port; none if the destination has none.
    pub id: Option<u64>,
    /// The backend of [`Effect::Forwarded`].
    pub backend: Option<SocketAddr>,
    /// The effect on the connection.
    pub effect: Effect,
}

/// An open trace. Dropping it ends the trace.
pub struct Tracer {
    events: RingBuf<MapData>,
    tracing: Array<MapData, Tracing>,
    lost: PerCpuArray<MapData, u64>,
    /// The lost events before this trace.
    lost_before: u64,
    effects: Vec<Effect>,
    /// The time until which programs write events.
    until: Duration,
    _lock: Lock,
}

impl Effect {
    /// All effects.
    pub const ALL: [Self; 5] = [Self::Forwarded, Self::Refused, Self::Dropped, Self::NoSuchPort, Self::NoService];
}

impl Tracer {
    /// Starts a trace of these effects. `None` if another process traces.
    pub fn start(pins: &Pins, effects: &[Effect]) -> Result<Option<Self>> {
        let Some(lock) = pins.lock_trace()? else { return Ok(None) };
        let mut tracer = Self {
            events: RingBuf::try_from(Map::RingBuf(open(pins, "TRACE")?))?,
            tracing: Array::try_from(Map::Array(open(pins, "TRACING")?))?,
            lost: PerCpuArray::try_from(Map::PerCpuArray(open(pins, "TRACE_LOST")?))?,
            lost_before: 0,
            effects: effects.to_vec(),
            until: uptime::monotonic(),
            _lock: lock,
        };
        tracer.lost_before = tracer.lost()?;
        // An earlier tracer may have ended before it read all events.
        while tracer.events.next().is_some() {}
        tracer.keep()?;
        Ok(Some(tracer))
    }

    /// Makes the programs go on to write events, for some seconds. To be called each second. Returns the time for which they had
    /// stopped, because the last call was too long ago; usually 0.
    pub fn keep(&mut self) -> Result<Duration> {
        let now = uptime::monotonic();
        let stopped = now.saturating_sub(self.until);
        self.until = now + LASTING;
        let until = u64::try_from(self.until.as_nanos()).unwrap_or(u64::MAX);
        let results = self.effects.iter().fold(0, |bits, effect| bits | 1 << *effect as u8);
        self.tracing.set(0, Tracing { until, results }, 0).context("failed to write TRACING")?;
        Ok(stopped)
    }

    /// The next event that the programs have written; `None` if all were read. Skips events of unknown kinds.
    pub fn read(&mut self) -> Option<Traced> {
        while let Some(bytes) = self.events.next() {
            if bytes.len() == size_of::<TraceEvent>()
                && let Some(traced) = encode::traced_of(&bpf::value_of(&bytes))
            {
                return Some(traced);
            }
        }
        None
    }

    /// The number of events that were lost because this process did not read them in time.
    pub fn lost(&self) -> Result<u64> {
        let counts = self.lost.get(&0, 0).context("failed to read TRACE_LOST")?;
        Ok(counts.iter().sum::<u64>().saturating_sub(self.lost_before))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // After a failure the programs end the trace themselves.
        self.tracing.set(0, Tracing::default(), 0).ok();
    }
}

/// The descriptor is readable while there are events.
impl AsFd for Tracer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
