//! `portmap status`: reads the pinned links and maps, and prints checks, notes, and the used entries of the maps.
//!
//! The agent records its state in the map STATE; the BPF programs count in the map TOTALS.

mod devices;

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, Color};
use portmap::{
    datapath::attach::{self, PROGRAMS},
    kernel::{
        limits::{CANNOT_SET_ERRORS, KEEPS_UDP_SOCKETS},
        uptime,
    },
    maps::{Capacity, Fullness, bpf::BpfMaps, encode, flows::sweep::UNANSWERED, pin::Pins},
    source::failing_watches,
};
use portmap_common::{DESTROYS_SOCKETS, LACKS_NODE, MEASURED, SETS_ERRORS, State, Totals};
use serde::Serialize;

use devices::DeviceState;

use super::{
    NO, PinsArguments,
    output::{self, Format},
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pins: PinsArguments,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let pins = self.pins.open()?;
        pins.expect()?;
        let health = check(&pins)?;
        if !output::print_data(&health, self.output)? {
            print_table(&health)?;
        }
        Ok(if health.healthy { ExitCode::SUCCESS } else { NO.into() })
    }
}

fn print_table(health: &Health) -> Result<()> {
    let mut table = output::new_table(&[]);
    for check in &health.checks {
        let (result, color) = if check.fine { ("ok", Color::Green) } else { ("NOT OK", Color::Red) };
        table.add_row([Cell::new(check.name), Cell::new(result).fg(color), Cell::new(&check.text)]);
    }
    for note in &health.notes {
        table.add_row([Cell::new("note"), Cell::new(""), Cell::new(note)]);
    }
    output::print_table(&table)?;
    let mut maps = output::new_table(&["MAP", "USED", "CAPACITY", "FULL"]);
    for map in &health.maps {
        let percent = f64::from(map.used) * 100.0 / f64::from(map.capacity.max(1));
        maps.add_row([map.name.to_owned(), map.used.to_string(), map.capacity.to_string(), format!("{percent:.1} %")]);
    }
    if !health.devices.is_empty() {
        output::print("\n")?;
        output::print_table(&devices::table(&health.devices))?;
    }
    output::print("\n")?;
    output::print_table(&maps)
}

/// The output of `portmap status`. Its JSON and YAML have these fields in camelCase.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    /// Whether all checks are fine.
    healthy: bool,
    /// The checks, in the order of their lines.
    checks: Vec<Check>,
    /// Notes that do not affect the health, such as counts of dropped calls.
    notes: Vec<String>,
    /// The network devices at which packets of clients outside the node are translated.
    devices: Vec<DeviceState>,
    /// The used and available entries of each map.
    maps: Vec<Fullness>,
}

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
struct Check {
    /// The name of the check: `programs`, `devices`, `agent`, `source`, `synced` or `room`.
    name: &'static str,
    /// Whether the check succeeded.
    fine: bool,
    /// The observation, and after a failure the remedy.
    text: String,
}

/// Runs the checks. Fails if the pins cannot be read. The duration grows only with the entries of AFFINITY, which are counted.
fn check(pins: &Pins) -> Result<Health> {
    let maps = BpfMaps::open(pins)?;
    let state = maps.state()?;
    let is_running = pins.is_locked()?;
    let devices = devices::read(pins, &state)?;
    let checks = vec![
        programs(pins)?,
        devices::check(&devices),
        agent(&state, is_running),
        source(&state, is_running),
        synced(&state, is_running, pins.is_synced()?),
        room(&state),
    ];
    let affinity_clients = maps.affinity_clients()?;
    let fullness = fullness(maps.capacity(), &state, affinity_clients);
    let nearly_full = fullness.iter().filter(|map| map.is_nearly_full());
    let mut notes: Vec<String> = nearly_full.filter_map(|map| Some(format!("{map}; {}", map.remedy()?))).collect();
    notes.extend(self::notes(&maps.totals()?, &state, affinity_clients));
    Ok(Health { healthy: checks.iter().all(|check| check.fine), checks, notes, devices, maps: fullness })
}

/// The programs that are not attached to a cgroup.
pub fn detached(pins: &Pins) -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for program in PROGRAMS {
        // A link outlives its cgroup, and then has the cgroup id 0.
        if attach::attachment(pins, program)?.is_none_or(|(cgroup, _)| cgroup == 0) {
            missing.push(program);
        }
    }
    Ok(missing)
}

fn programs(pins: &Pins) -> Result<Check> {
    let missing = detached(pins)?;
    let text = if missing.is_empty() {
        format!("{} are attached", PROGRAMS.join(", "))
    } else {
        format!(
            "{} are not attached; a running agent attaches them within a second or logs the reason; to start one: portmap run",
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
        "no agent is running: the tables stay in force without updates; to start one: portmap run".to_owned()
    };
    Check { name: "agent", fine: is_running, text }
}

/// Checks the agent's watches. The check fails without an agent, or if a watch has failed for at least 15 seconds: the API
/// server is unreachable, or refuses the request.
fn source(state: &State, is_running: bool) -> Check {
    let silent_on = encode::kinds_of(state.silent_on);
    let text = if !is_running {
        "no agent watches the objects".to_owned()
    } else if silent_on.is_empty() {
        "all objects are watched".to_owned()
    } else {
        format!(
            "{} for {}: the tables stay in force without updates; the agent's log has the reason",
            failing_watches(&silent_on),
            ago(state.silent_since)
        )
    };
    Check { name: "source", fine: is_running && silent_on.is_empty(), text }
}

/// Checks that the tables have agreed with the objects since the agent's start. Without an agent, they need have agreed once.
fn synced(state: &State, is_running: bool, is_synced: bool) -> Check {
    let fine = is_synced || (!is_running && state.last_sync > 0);
    let text = match (fine, state.last_sync) {
        (true, last) => format!("tables and objects last agreed {} ago", ago(last)),
        (false, 0) => "Services and EndpointSlices have not been listed yet".to_owned(),
        (false, last) => format!("the agent has not synced since its start; the tables are {} old", ago(last)),
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

fn notes(totals: &Totals, state: &State, affinity_clients: u32) -> Vec<String> {
    let mut notes = missing(state);
    let counts = agent_counts(state).into_iter().chain(program_counts(totals, affinity_clients));
    notes.extend(counts.filter(|(count, _)| *count > 0).map(|(count, text)| format!("{count} {text}")));
    notes
}

/// Notes about missing features of the kernel, and about a missing Node object.
fn missing(state: &State) -> Vec<String> {
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

/// The numbers that the agent records in STATE, each with its text: conflicts, faults, repairs, unknown namespaces, absent devices
/// and refusals without an answer.
fn agent_counts(state: &State) -> [(u64, &'static str); 6] {
    [
        (
            state.contested.into(),
            "addresses and ports are claimed by several Services, of which one gets each; the agent's log names the others",
        ),
        (state.faulty.into(), "Services have settings that are not in effect; the agent's log names them"),
        (state.repairs, "writes undid changes of the tables by other programs"),
        (
            state.namespaces_left_out.into(),
            "network namespaces are unknown, so source ranges drop the calls of their clients; the agent's log has the reason",
        ),
        (
            state.devices_absent.into(),
            "network devices of --devices or --pod-devices do not exist; the agent waits for them, and its log names them",
        ),
        (state.unanswered.into(), UNANSWERED),
    ]
}

/// The numbers of events, from the counts of the BPF programs, each with its text.
fn program_counts(totals: &Totals, affinity_clients: u32) -> [(u64, &'static str); 9] {
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
        outside_forwarded: _,
        outside_refused: _,
        outside_dropped: _,
        outside_without_port,
        outside_overflowed,
    } = *totals;
    let forgotten_clients = ever.saturating_sub(affinity_clients.into());
    [
        (undefined_port, "calls to ports that a Service does not define were refused"),
        (unallocated, "calls to ClusterIPs that no Service has were dropped"),
        (unknown_namespace, "calls from unknown network namespaces or source addresses were dropped by source ranges"),
        (not_admitted, "calls from addresses outside of the source ranges were dropped"),
        (
            forgotten_sockets,
            "calls were translated without a note on the socket, for lack of kernel memory; raise net.core.optmem_max",
        ),
        (
            affinity_over_share,
            "clients were not remembered by session affinity: the processes of their cgroup began too many sessions in an hour",
        ),
        (
            forgotten_clients,
            "clients of session affinity were forgotten; restart the agent with a larger --max-affinity-clients",
        ),
        (
            outside_without_port,
            "packets of clients outside the node were dropped, because no port towards the backend was free",
        ),
        (
            outside_overflowed,
            "flows of clients outside the node were opened while too many were half open: a SYN flood, or many clients that send \
             one datagram each",
        ),
    ]
}

/// The used entries and the capacity of each map. STATE has the numbers of the maps that the agent fills; the programs fill
/// AFFINITY.
fn fullness(capacity: Capacity, state: &State, affinity_clients: u32) -> Vec<Fullness> {
    let of_agent = MEASURED.into_iter().zip(state.used);
    let all = of_agent.chain([("AFFINITY", affinity_clients)]);
    all.map(|(name, used)| Fullness { name, used, capacity: capacity.of_map(name) }).collect()
}

/// The time since `moment` (seconds since boot).
fn ago(moment: u64) -> String {
    output::duration(uptime::now().as_secs().saturating_sub(moment))
}
