//! Eight threads connect to Services while a loop rewrites the manifests, each time with other backends for every Service.
//!
//! A connection must reach a backend that was a member at some moment of its call. Only a connected UDP socket may fail, if its
//! backend is removed before the answer. In two further tests, processes hold connected sockets, or threads share one socket.
//!
//! The exact moment of a change is unknown: it is between the writing of the file and the moment when the tables show it. The
//! recorded periods include this uncertainty.
//!
//! Needs: root and BPF.
#![expect(clippy::unwrap_used, reason = "a test reports an error by a panic")]

mod field;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use portmap_harness::agent::Agent;
use portmap_harness::listen::{Listen, Protocol};
use portmap_harness::patience::{patience, slowness};
use portmap_harness::pod_hammer::{Manner, Visit};
use portmap_harness::pod_share::Heard;
use portmap_harness::process::{Process, Socket};
use portmap_harness::random::Random;
use portmap_harness::say;
use portmap_harness::worker::Worker;
use portmap_harness::world::{Pod, World};
use portmap_suites::service_objects::{Endpoint, PORT, Service, Via, cluster_ip};
use serde_json::json;

use field::{Field, SERVICES};

const THREADS: &str = "8";

/// Minimum number of connections per second. A run with fewer connections proves too little.
const LEAST_CONNECTIONS: u64 = 400;

/// Minimum number of rewrites of the manifests per second. A run with fewer rewrites proves too little.
const LEAST_REWRITES: u64 = 2;

/// Errors of a connected UDP socket whose backend is removed before the answer arrives.
const DESTROYED: [&str; 3] = ["ECONNABORTED", "EDESTADDRREQ", "ENOTCONN"];

/// The minimum count for a run of this time. It is lower on slow machines.
fn at_least(each_second: u64, time: Duration) -> u64 {
    each_second * time.as_secs() / u64::from(slowness())
}

fn seconds() -> u64 {
    std::env::var("PORTMAP_STRESS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

#[test]
fn connections_reach_only_members() {
    let time = Duration::from_secs(seconds());
    let mut field = Field::new();
    field.change();
    let mut hammer = hammer(&field.client);
    let begin = Instant::now();
    while begin.elapsed() < time {
        field.change();
    }
    let (pace, usage) = (field.pace(begin.elapsed()), field.agent.usage().unwrap());
    let visits: Vec<Visit> = hammer.finish().unwrap();
    let rewrites = field.rewrites;
    let mut errors: BTreeMap<(Manner, String), u64> = BTreeMap::new();
    let mut landed: BTreeMap<Manner, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for visit in &visits {
        match &visit.answer {
            Ok(answer) => {
                *landed.entry(visit.manner).or_default() += 1;
                wrong.extend(field.misdirection(visit, answer));
            }
            Err(error) => *errors.entry((visit.manner, error.clone())).or_default() += 1,
        }
    }
    say::figures(format_args!(
        "{pace}; {landed:?} connections, {} misdirected, errors {errors:?}; the agent: {usage}",
        wrong.len()
    ));
    assert!(
        wrong.is_empty(),
        "{} connections reached other backends, among them\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    errors.retain(|(manner, error), _| *manner != Manner::Connected || !DESTROYED.contains(&error.as_str()));
    assert!(errors.is_empty(), "connections failed: {errors:?}");
    let least = at_least(LEAST_CONNECTIONS, time);
    assert!(landed.len() == 3 && landed.values().sum::<u64>() >= least, "too few connections for a result: {landed:?}");
    assert!(rewrites >= at_least(LEAST_REWRITES, time), "too few rewrites for a result: {rewrites}");
}

/// A connected socket that is not destroyed must have a current backend, independent of the moment of its `connect()`.
#[test]
fn connected_sockets_do_not_keep_removed_backends() {
    const HOLDERS: usize = 4;
    let time = Duration::from_secs(seconds());
    let mut field = Field::new();
    field.change();
    let processes: Vec<Process> = (0..HOLDERS).map(|_| Process::in_pod(&field.client).unwrap()).collect();
    let last = &OnceLock::new();
    let held = thread::scope(|scope| {
        let holders: Vec<_> =
            (1..).zip(processes).map(|(seed, process)| scope.spawn(move || hold(&process, Random::new(seed), last))).collect();
        let until = Instant::now() + time;
        while Instant::now() < until {
            field.change();
        }
        last.set(field.answers()).unwrap();
        holders.into_iter().map(|holder| holder.join().unwrap()).collect::<Vec<_>>()
    });
    let connections: u64 = held.iter().map(|(connections, _)| connections).sum();
    let outdated: Vec<&String> = held.iter().flat_map(|(_, outdated)| outdated).collect();
    let rewrites = field.rewrites;
    say::figures(format_args!(
        "{connections} connected sockets during {rewrites} rewrites, {} with removed backends",
        outdated.len()
    ));
    assert!(
        outdated.is_empty(),
        "{} sockets are connected to removed backends: {outdated:?}\n{}",
        outdated.len(),
        field.agent.log()
    );
    assert!(connections >= at_least(LEAST_CONNECTIONS, time), "too few connections for a result: {connections}");
}

/// Connects UDP sockets until `last` has the final backends, and keeps the latest 64 sockets. Returns the number of
/// connections, and the answers that still came from other backends after the time limit.
fn hold(process: &Process, mut random: Random, last: &OnceLock<Vec<BTreeSet<String>>>) -> (u64, Vec<String>) {
    const KEPT: usize = 64;
    let mut held: VecDeque<(usize, Socket<'_>)> = VecDeque::new();
    let mut connections = 0;
    let last = loop {
        if let Some(last) = last.get() {
            break last;
        }
        let service = random.below(usize::from(SERVICES));
        let via = [Via::V4, Via::V6, Via::Mapped][random.below(3)];
        let address = cluster_ip(u8::try_from(service).unwrap() + 1).at(via, PORT);
        held.push_back((service, process.connected(address, Protocol::Udp).unwrap()));
        connections += 1;
        if held.len() > KEPT {
            held.pop_front();
        }
    };
    let until = Instant::now() + patience(Duration::from_secs(5));
    let outdated = held.iter().filter_map(|(service, socket)| {
        loop {
            // A destroyed socket returns an error.
            let answer = socket.ask().ok().filter(|answer| !last[*service].contains(answer))?;
            if Instant::now() > until {
                return Some(format!("{answer} of s{}", service + 1));
            }
            thread::sleep(Duration::from_millis(10));
        }
    });
    (connections, outdated.collect())
}

/// Threads share a socket and send to more Services than the programs can remember for it. An answer must show the right
/// Service or the pod's own address.
#[test]
fn a_shared_socket_shows_the_right_service() {
    let world = World::new("shared").unwrap();
    let mut pod = world.pod("a").unwrap();
    let ports = 9001..=9020;
    pod.serve(&ports.clone().map(Listen::udp).collect::<Vec<_>>()).unwrap();
    let services = (1..)
        .zip(ports.clone())
        .map(|(number, port)| Service::new(&format!("s{number}"), number).endpoints([Endpoint::of(&pod).port(port)]));
    let objects: Vec<_> = services.flat_map(|service| service.objects()).collect();
    Agent::write(&world, "objects.json", &json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).unwrap();
    let _agent = Agent::start(&world, &[]).unwrap();
    let client = world.client("client").unwrap();
    let targets: Vec<SocketAddr> = (1..=20).map(|number| cluster_ip(number).at(Via::V4, PORT)).collect();
    let arguments = ["share", "--threads", "4"].map(str::to_owned).into_iter().chain(targets.iter().map(ToString::to_string));
    let mut worker = Worker::start(&client, arguments).unwrap();
    thread::sleep(Duration::from_secs(seconds() / 2));
    let heard: Vec<Heard> = worker.finish().unwrap();
    let is_right = |heard: &&Heard| {
        let port: u16 = heard.answer.trim_start_matches("a ").trim_end_matches("/UDP").parse().unwrap();
        // The programs may forget a Service. The answer then shows the pod's own address.
        let service = targets.get(usize::from(port - ports.start()));
        Some(&heard.source) == service || heard.source == SocketAddr::new(pod.ipv4().into(), port)
    };
    let (right, wrong): (Vec<&Heard>, Vec<&Heard>) = heard.iter().partition(is_right);
    let total: u64 = right.iter().map(|heard| heard.count).sum();
    say::figures(format_args!("{total} answers with the right Service, {} with another", wrong.len()));
    assert!(wrong.is_empty(), "answers that were shown as another Service's, beside {total} right ones: {wrong:?}");
    assert!(total >= at_least(LEAST_CONNECTIONS, Duration::from_secs(seconds())), "too few answers for a result: {heard:?}");
}

/// Starts threads that connect to every Service by TCP, connected UDP and unconnected UDP.
fn hammer(client: &Pod) -> Worker {
    let targets = (1..=SERVICES).flat_map(|number| [Via::V4, Via::V6].map(|via| cluster_ip(number).at(via, PORT)));
    let arguments = targets.map(|target| target.to_string()).flat_map(|target| {
        [["--tcp".to_owned(), target.clone()], ["--connected".to_owned(), target.clone()], ["--unconnected".to_owned(), target]]
    });
    let arguments = ["hammer", "--threads", THREADS].map(str::to_owned).into_iter().chain(arguments.flatten());
    Worker::start(client, arguments).unwrap()
}
