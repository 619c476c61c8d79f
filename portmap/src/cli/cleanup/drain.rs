//! `portmap cleanup --drain`: waits for the end of the TCP connections of clients outside the node, before the programs that
//! translate their packets are removed.
//!
//! New connections are left to another proxy from the start: a device without an entry in DEVICES opens no flow, and the
//! programs of the cgroup are detached. UDP has no connections: an answered flow ends at once, unless its client has sent more
//! since, and nothing waits for the other flows.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use portmap::{
    datapath::attach,
    maps::{
        devices::DeviceMap,
        flows::{
            FlowMaps,
            list::{Flow, Phase},
            now,
        },
        pin::Pins,
    },
};

use crate::cli::output;

/// The time between two looks at the flows. It also suffices for answers that are under way when the drain starts.
const PAUSE: Duration = Duration::from_millis(500);

/// Leaves new connections to another proxy. Returns when no connection is open any more, or after `limit`.
///
/// If the process ends before, the open connections go on, and a later cleanup continues.
pub fn drain(pins: &Pins, limit: Duration) -> Result<()> {
    DeviceMap::open(pins)?.clear()?;
    attach::detach(pins)?;
    let (flows, begin) = (FlowMaps::open(pins)?, Instant::now());
    let look = || flows.delete_answered().and_then(|()| open_connections(&flows));
    let mut open = look()?;
    let limit_text = output::duration(limit.as_secs());
    output::print(&format!(
        "new connections are left to another proxy; waiting for {open} open TCP connections of clients outside the node, for \
         {limit_text} at most\n"
    ))?;
    loop {
        thread::sleep(PAUSE.min(limit.saturating_sub(begin.elapsed())));
        open = look()?;
        if open == 0 || begin.elapsed() >= limit {
            break;
        }
    }
    if open > 0 {
        output::warning(&format!("{open} connections are still open after {limit_text}, and break now"));
    }
    Ok(())
}

/// The number of open TCP connections, those that are being opened included. A refused connection is none.
fn open_connections(flows: &FlowMaps) -> Result<usize> {
    Ok(flows.list(now())?.iter().filter(|flow| is_open(flow)).count())
}

fn is_open(flow: &Flow) -> bool {
    match flow.phase {
        Phase::HalfOpen | Phase::Established | Phase::Closing => flow.backend.is_some(),
        Phase::Closed | Phase::Datagrams => false,
    }
}
