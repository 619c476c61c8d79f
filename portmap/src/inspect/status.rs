//! What the pins tell of the datapath's and the agent's health.

use anyhow::Result;
use portmap_common::{DESTROYS_SOCKETS, LACKS_NODE, MEASURED, SETS_ERRORS, SYNCED, State, Totals};
use serde::Serialize;

use crate::{
    datapath::attach::{self, PROGRAMS},
    kernel::{
        limits::{CANNOT_SET_ERRORS, KEEPS_UDP_SOCKETS},
        uptime,
    },
    maps::{Capacity, Fullness, bpf::BpfMaps, encode, pin::Pins},
    source::nothing_heard_of,
};

/// The answer of `portmap status`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Whether every check is fine.
    pub healthy: bool,
    /// What was looked at.
    pub checks: Vec<Check>,
    /// What is worth knowing, and no trouble of the agent's.
    pub notes: Vec<String>,
    /// How full the maps are.
    pub maps: Vec<Fullness>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What it is about.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub fine: bool,
    /// What was seen.
    pub text: String,
}

/// Looks at the links, and at what the agent and the programs have noted: it costs the same however much the tables hold.
pub fn look(pins: &Pins) -> Result<Health> {
    let maps = BpfMaps::open(pins)?;
    let state = maps.state()?;
    let is_running = pins.is_locked()?;
    let checks = vec![programs(pins)?, agent(&state, is_running), source(&state, is_running), synced(&state), room(&state)];
    let affinity_clients = maps.affinity_clients()?;
    let fullness = fullness(maps.capacity(), &state, affinity_clients);
    let nearly_full = fullness.iter().filter(|map| map.is_nearly_full());
    let mut notes: Vec<String> = nearly_full.map(|map| format!("{map}; {} makes room", map.flag())).collect();
    notes.extend(self::notes(&maps.totals()?, &state, affinity_clients));
    Ok(Health { healthy: checks.iter().all(|check| check.fine), checks, notes, maps: fullness })
}

fn programs(pins: &Pins) -> Result<Check> {
    let mut missing = Vec::new();
    for program in PROGRAMS {
        // A link outlives its cgroup, but has none then.
        if attach::attachment(pins, program)?.is_none_or(|(cgroup, _)| cgroup == 0) {
            missing.push(program);
        }
    }
    let text = if missing.is_empty() {
        format!("{} are attached", PROGRAMS.join(", "))
    } else {
        format!(
            "{} are not attached; the agent attaches them within a second or logs why; if none runs, start it: portmap run",
            missing.join(", ")
        )
    };
    Ok(Check { name: "programs", fine: missing.is_empty(), text })
}

fn agent(state: &State, is_running: bool) -> Check {
    let version = encode::text_of(&state.version).unwrap_or_default();
    let text = if is_running {
        format!("version {version} runs as process {} for {}", state.pid, ago(state.started))
    } else {
        "none is running: the tables are in force as it left them, and grow old; start it: portmap run".to_owned()
    };
    Check { name: "agent", fine: is_running, text }
}

/// That changes are heard of; the API server may be away, or not let the agent in.
fn source(state: &State, is_running: bool) -> Check {
    let silent_on = encode::kinds_of(state.silent_on);
    let text = if !is_running {
        "no agent listens for changes of objects".to_owned()
    } else if silent_on.is_empty() {
        "changes of objects are heard of".to_owned()
    } else {
        format!(
            "{} for {}: the tables are in force, and grow old; the agent's log says why",
            nothing_heard_of(&silent_on),
            ago(state.silent_since)
        )
    };
    Check { name: "source", fine: is_running && silent_on.is_empty(), text }
}

fn synced(state: &State) -> Check {
    let fine = state.flags & SYNCED != 0;
    let text = match (fine, state.last_sync) {
        (true, last) => format!("tables and objects last agreed {} ago", ago(last)),
        (false, 0) => "Services and EndpointSlices have not been listed yet".to_owned(),
        (false, last) => format!("not since the agent started; the tables are {} old", ago(last)),
    };
    Check { name: "synced", fine, text }
}

fn room(state: &State) -> Check {
    let text = match (state.left_out, state.without_room) {
        (0, 0) => "every frontend is in the tables".to_owned(),
        (0, others) => format!(
            "{others} endpoints, source ranges or ClusterIPs are left out; restart the agent with a larger --max-backends or \
             --max-services"
        ),
        (frontends, _) => format!(
            "{frontends} frontends are left out; the agent's log names them; restart it with a larger --max-services or \
             --max-backends"
        ),
    };
    Check { name: "room", fine: state.left_out == 0 && state.without_room == 0, text }
}

/// What the kernel cannot do, and what happened that somebody may wonder about.
fn notes(totals: &Totals, state: &State, affinity_clients: u32) -> Vec<String> {
    let mut notes = limits(state);
    let counts = counts(totals, state, affinity_clients);
    notes.extend(counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
    notes
}

/// What is missing: features of the kernel, or the Node.
fn limits(state: &State) -> Vec<String> {
    let mut notes = Vec::new();
    if state.flags & SETS_ERRORS == 0 {
        notes.push(CANNOT_SET_ERRORS.to_owned());
    }
    if state.flags & DESTROYS_SOCKETS == 0 {
        notes.push(format!("this kernel cannot destroy sockets: {KEEPS_UDP_SOCKETS}"));
    }
    if state.flags & LACKS_NODE != 0 {
        notes.push(
            "there is no Node of the agent's --node-name: no endpoint counts as local, and some Services keep traffic on the node"
                .to_owned(),
        );
    }
    notes
}

/// What happened, each with its count.
fn counts(totals: &Totals, state: &State, affinity_clients: u32) -> [(u64, &'static str); 11] {
    let Totals {
        forwarded: _,
        refused: _,
        dropped: _,
        undefined_port,
        unallocated,
        unknown_namespace,
        not_admitted,
        forgotten_sockets,
        affinity_clients: ever,
        affinity_over_share,
    } = *totals;
    let (contested, faulty) = (u64::from(state.contested), u64::from(state.faulty));
    let repairs = state.repairs;
    let namespaces_left_out = u64::from(state.namespaces_left_out);
    let forgotten_clients = ever.saturating_sub(affinity_clients.into());
    [
        (contested, "addresses are claimed by several Services, of which one has them; the agent's log names them"),
        (faulty, "Services ask for something that they do not get; the agent's log names them"),
        (repairs, "writes undid what somebody else had changed in the tables"),
        (
            namespaces_left_out,
            "network namespaces are not known for source ranges: their clients are kept out; the agent's log says why",
        ),
        (undefined_port, "calls to ports that a Service does not define were refused"),
        (unallocated, "calls to addresses that no Service has were dropped"),
        (
            unknown_namespace,
            "calls were dropped by source ranges, from a network namespace or a source address that was not known",
        ),
        (not_admitted, "calls were dropped by source ranges"),
        (
            forgotten_sockets,
            "calls were translated without a note on the socket: the kernel had no memory (net.core.optmem_max)",
        ),
        (
            affinity_over_share,
            "clients were not remembered by session affinity: processes of their cgroup had begun too many sessions in an hour",
        ),
        (forgotten_clients, "clients of session affinity were forgotten; --max-affinity-clients makes room"),
    ]
}

/// How full the maps are: as the agent last said, but for AFFINITY, which the programs fill.
fn fullness(capacity: Capacity, state: &State, affinity_clients: u32) -> Vec<Fullness> {
    let of_agent = MEASURED.into_iter().zip(state.used);
    let all = of_agent.chain([("AFFINITY", affinity_clients)]);
    all.map(|(name, used)| Fullness { name, used, capacity: capacity.of_map(name) }).collect()
}

/// How long ago a moment was, given in seconds since the kernel started, in the largest unit that is not 0.
fn ago(moment: u64) -> String {
    let elapsed = uptime::now().as_secs().saturating_sub(moment);
    match elapsed {
        0..=119 => format!("{elapsed} s"),
        120..=7_199 => format!("{} min", elapsed / 60),
        7_200..=172_799 => format!("{} h", elapsed / 3_600),
        _ => format!("{} d", elapsed / 86_400),
    }
}
