//! Agents end and start at random moments while five processes connect to Services, one of them outside the node. No connection
//! may fail or reach a wrong backend.
//!
//! Agents are killed, stopped, restarted, and replaced by agents with other sizes of maps, another version of the tables, or an
//! earlier build.
//!
//! `PORTMAP_CHAOS_SECONDS` is the duration (30 by default). `PORTMAP_CHAOS_SEED` repeats the order of events.
//! `PORTMAP_EARLIER_AGENTS` has the paths of earlier builds, separated as in `PATH` (none by default).
//!
//! Needs: root and BPF.
#![expect(clippy::unwrap_used, reason = "a test reports an error by a panic")]

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use portmap_harness::agent::Agent;
use portmap_harness::listen::Listen;
use portmap_harness::pod_hammer::{Manner, Tally};
use portmap_harness::random::Random;
use portmap_harness::say;
use portmap_harness::worker::Worker;
use portmap_harness::world::{Group, OUTSIDE, Pod, World};
use portmap_suites::service_objects::{Endpoint, PORT, Service, Via, cluster_ip};
use serde_json::json;

const PROCESSES: usize = 4;
const SERVICES: u8 = 6;
const PODS: [&str; 3] = ["a", "b", "c"];
/// Every pod serves Service n on port 9000 + n.
const PORTS: u16 = 9000;

/// Arguments of the agents. Agents with different arguments cannot use each other's maps, because the sizes or the version of
/// the tables differ.
const ARGUMENTS: [&[&str]; 4] =
    [&[], &["--max-services", "2000"], &["--abi-version", "901"], &["--abi-version", "902", "--max-backends", "9000"]];

/// The program and arguments of an agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Build {
    /// The current build, with these arguments.
    Today(&'static [&'static str]),
    /// The program of an earlier build.
    Earlier(PathBuf),
}

impl Build {
    fn all() -> Vec<Self> {
        let earlier = env::var_os("PORTMAP_EARLIER_AGENTS").unwrap_or_default();
        let earlier = env::split_paths(&earlier).filter(|path| !path.as_os_str().is_empty()).map(Self::Earlier);
        ARGUMENTS.into_iter().map(Self::Today).chain(earlier).collect()
    }

    fn spawn(&self, world: &World, arguments: &[&str]) -> Agent {
        match self {
            Self::Today(own) => Agent::spawn(world, &[arguments, *own, &["--devices", OUTSIDE]].concat()),
            Self::Earlier(path) => Agent::spawn_build(world, path, arguments),
        }
        .unwrap()
    }
}

/// Minimum number of connections per second. A run with fewer connections proves too little.
const LEAST_CONNECTIONS: u64 = 200;

/// The option of `portmap-pod hammer` for TCP.
const TCP: &str = "--tcp";

/// The options of `portmap-pod hammer` for a client on the node. The client outside uses only TCP: in a run with all three, one of
/// its connected UDP sockets got no answer, and the cause is not known.
const MANNERS: [&str; 3] = [TCP, "--connected", "--unconnected"];

/// As [`LEAST_CONNECTIONS`], for the client outside the node.
const LEAST_OUTSIDE: u64 = 20;

fn variable(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_connection_is_lost_while_agents_end_and_start() {
    let time = Duration::from_secs(variable("PORTMAP_CHAOS_SECONDS", 30));
    let seed = variable("PORTMAP_CHAOS_SEED", 1);
    let world = World::new("chaos").unwrap();
    let pods: Vec<Pod> = PODS.iter().map(|name| serving(&world, name)).collect();
    write_services(&world, &pods);
    let clients: Vec<Pod> = (0..PROCESSES).map(|number| world.client(&format!("client{number}")).unwrap()).collect();
    let outside = world.outside_client("outside", &pods).unwrap();
    let mut chaos = Chaos {
        agent: Agent::start(&world, &["--devices", OUTSIDE]).unwrap(),
        world,
        random: Random::new(seed),
        builds: Build::all(),
        events: BTreeMap::new(),
    };
    let mut workers: Vec<Worker> = clients.iter().map(|client| hammer(client, Group::Clients, &MANNERS)).collect();
    let mut visitor = hammer(&outside, Group::Clean, &[TCP]);
    let until = Instant::now() + time;
    while Instant::now() < until {
        chaos.strike();
    }
    chaos.let_each_build_settle();
    let mut tallies: Vec<Tally> = visitor.finish().unwrap();
    let from_outside: u64 = tallies.iter().map(|tally| tally.count).sum();
    tallies.extend(workers.iter_mut().flat_map(|worker| worker.finish::<Tally>().unwrap()));
    let mut connections: BTreeMap<Manner, u64> = BTreeMap::new();
    for Tally { manner, count, .. } in &tallies {
        *connections.entry(*manner).or_default() += count;
    }
    let wrong: Vec<&Tally> = tallies.iter().filter(|tally| !is_right(tally)).collect();
    let (total, events) = (connections.values().sum::<u64>(), chaos.events.values().sum::<u32>());
    say::figures(format_args!(
        "{total} connections {connections:?}, {from_outside} of them from outside, {} failed or misdirected, during {events} events {:?} of {} builds (seed {seed})",
        wrong.iter().map(|tally| tally.count).sum::<u64>(),
        chaos.events,
        chaos.builds.len()
    ));
    assert!(wrong.is_empty(), "failed or misdirected: {wrong:#?}\n{}", chaos.agent.log());
    assert!(
        connections.len() == 3 && total >= LEAST_CONNECTIONS * time.as_secs() && from_outside >= LEAST_OUTSIDE * time.as_secs(),
        "too few connections for a result: {connections:?}, {from_outside} of them from outside"
    );
    assert_eq!(chaos.events.len(), Event::ALL.len(), "every kind of event should have occurred: {:?}", chaos.events);
}

/// Whether the answer comes from a pod of the Service, on the Service's own port.
fn is_right(tally: &Tally) -> bool {
    let service = (1..=SERVICES).find(|number| cluster_ip(*number).addresses().contains(&tally.target.ip().to_canonical()));
    let port = PORTS + u16::from(service.unwrap());
    let protocol = if tally.manner == Manner::Tcp { "TCP" } else { "UDP" };
    let is_pods = |answer: &String| PODS.iter().any(|pod| *answer == format!("{pod} {port}/{protocol}"));
    tally.answer.as_ref().is_ok_and(is_pods)
}

fn serving(world: &World, name: &str) -> Pod {
    let mut pod = world.pod(name).unwrap();
    let ports = (1..=SERVICES).map(|number| PORTS + u16::from(number));
    pod.serve(&ports.flat_map(|port| [Listen::tcp(port), Listen::udp(port)]).collect::<Vec<_>>()).unwrap();
    pod
}

fn write_services(world: &World, pods: &[Pod]) {
    let service = |number: u8| {
        let endpoints = pods.iter().map(|pod| Endpoint::of(pod).port(PORTS + u16::from(number)));
        Service::new(&format!("s{number}"), number).endpoints(endpoints).objects()
    };
    let objects: Vec<_> = (1..=SERVICES).flat_map(service).collect();
    Agent::write(world, "objects.json", &json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).unwrap();
}

fn hammer(client: &Pod, group: Group, manners: &[&str]) -> Worker {
    let targets = (1..=SERVICES).flat_map(|number| Via::ALL.map(|via| cluster_ip(number).at(via, PORT).to_string()));
    let arguments = targets.flat_map(|target| manners.iter().map(move |manner| [(*manner).to_owned(), target.clone()]));
    let arguments = ["hammer", "--tally", "--threads", "2"].map(str::to_owned).into_iter().chain(arguments.flatten());
    Worker::start_in(client, group, arguments).unwrap()
}

/// The way in which an agent ends and the next one starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The agent is killed, and the next one starts.
    Killed,
    /// The agent is stopped by SIGTERM, and the next one starts.
    Stopped,
    /// The agent is killed, and its successor is killed about 250 ms after its start at the latest. Then another one starts.
    KilledAtStart,
    /// The next agent starts with `--wait` beside the current one, which is killed within about 250 ms.
    Succeeded,
}

impl Event {
    const ALL: [Self; 4] = [Self::Killed, Self::Stopped, Self::KilledAtStart, Self::Succeeded];
}

struct Chaos {
    agent: Agent,
    world: World,
    random: Random,
    builds: Vec<Build>,
    events: BTreeMap<Event, u32>,
}

impl Chaos {
    /// Causes a random event after a random time.
    fn strike(&mut self) {
        self.pause(600);
        let event = Event::ALL[self.random.below(Event::ALL.len())];
        let build = self.builds[self.random.below(self.builds.len())].clone();
        match event {
            Event::Killed => self.restart(Signal::SIGKILL, &build),
            Event::Stopped => self.restart(Signal::SIGTERM, &build),
            Event::KilledAtStart => {
                self.restart(Signal::SIGKILL, &build);
                self.pause(250);
                self.restart(Signal::SIGKILL, &build);
            }
            Event::Succeeded => {
                let next = build.spawn(&self.world, &["--wait"]);
                self.pause(250);
                self.agent.stop(Signal::SIGKILL).unwrap();
                self.agent = next;
            }
        }
        *self.events.entry(event).or_default() += 1;
    }

    /// Runs each build until it is healthy. A build that never becomes active would prove nothing.
    fn let_each_build_settle(&mut self) {
        for build in self.builds.clone() {
            self.restart(Signal::SIGTERM, &build);
            let is_healthy = |agent: &Agent| Ok(agent.portmap(&["status"])?.status.success());
            self.agent.wait_until(&format!("{build:?} is healthy"), is_healthy).unwrap();
        }
    }

    fn restart(&mut self, signal: Signal, build: &Build) {
        self.agent.stop(signal).unwrap();
        self.agent = build.spawn(&self.world, &[]);
    }

    /// Sleeps for a random time of less than `most` milliseconds. The randomness is the purpose: there is no event to wait for.
    fn pause(&mut self, most: usize) {
        thread::sleep(Duration::from_millis(self.random.below(most) as u64));
    }
}
