//! Eight threads connect to Services all the time while the manifests are rewritten in a loop, each time with other backends for
//! every Service. No connection may land on a backend that was not a member at some moment between the start and the end of its
//! call, and none may fail.
//!
//! What is known of the moment of a change is that it lies between the writing of the file and the tables' showing it; the history
//! here is as generous as that, and no more.
//!
//! Needs: kernel.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

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

/// Fewer would not say much, in each second.
const LEAST_CONNECTIONS: u64 = 400;

/// As few would come of rewriting in an ordinary day.
const LEAST_REWRITES: u64 = 2;

/// What a connected UDP socket meets when its backend is removed before it has its answer.
const DESTROYED: [&str; 3] = ["ECONNABORTED", "EDESTADDRREQ", "ENOTCONN"];

/// What there has to be of something in this time.
fn at_least(each_second: u64, time: Duration) -> u64 {
    each_second * time.as_secs() / u64::from(slowness())
}

fn seconds() -> u64 {
    std::env::var("PORTMAP_STRESS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

#[test]
fn no_connection_lands_on_a_backend_that_was_no_member() {
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
                wrong.extend(field.complaint(visit, answer));
            }
            Err(error) => *errors.entry((visit.manner, error.clone())).or_default() += 1,
        }
    }
    say::figures(format_args!("{pace}; {landed:?} connections, {} astray, errors {errors:?}; the agent: {usage}", wrong.len()));
    assert!(
        wrong.is_empty(),
        "{} landed where they should not, among them\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    errors.retain(|(manner, error), _| *manner != Manner::Connected || !DESTROYED.contains(&error.as_str()));
    assert!(errors.is_empty(), "connections failed: {errors:?}");
    let least = at_least(LEAST_CONNECTIONS, time);
    assert!(landed.len() == 3 && landed.values().sum::<u64>() >= least, "too few connections to say anything: {landed:?}");
    assert!(rewrites >= at_least(LEAST_REWRITES, time), "too few rewrites to say anything: {rewrites}");
}

/// However unfortunate the moment at which it was connected: a socket that is not destroyed has a backend that is one.
#[test]
fn no_connected_socket_stays_with_a_backend_that_is_gone() {
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
    let stale: Vec<&String> = held.iter().flat_map(|(_, stale)| stale).collect();
    let rewrites = field.rewrites;
    say::figures(format_args!("{connections} connected sockets during {rewrites} rewrites, {} left with others", stale.len()));
    assert!(
        stale.is_empty(),
        "{} sockets are connected to backends that are gone: {stale:?}\n{}",
        stale.len(),
        field.agent.log()
    );
    assert!(connections >= at_least(LEAST_CONNECTIONS, time), "too few connections to say anything: {connections}");
}

/// Connects, and keeps the latest, until it is known what the last backends are. Returns how many there were, and the answers of those
/// that still speak to others.
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
    let stale = held.iter().filter_map(|(service, socket)| {
        loop {
            // One that was destroyed says so.
            let answer = socket.ask().ok().filter(|answer| !last[*service].contains(answer))?;
            if Instant::now() > until {
                return Some(format!("{answer} of s{}", service + 1));
            }
            thread::sleep(Duration::from_millis(10));
        }
    });
    (connections, stale.collect())
}

/// Threads that share a socket, and speak to more Services than it can remember: what is remembered must not be mixed up.
#[test]
fn a_socket_that_threads_share_is_never_told_of_another_service() {
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
        // What was forgotten is shown as what it is.
        let service = targets.get(usize::from(port - ports.start()));
        Some(&heard.source) == service || heard.source == SocketAddr::new(pod.ipv4().into(), port)
    };
    let (right, wrong): (Vec<&Heard>, Vec<&Heard>) = heard.iter().partition(is_right);
    let total: u64 = right.iter().map(|heard| heard.count).sum();
    say::figures(format_args!("{total} answers of the right Service, {} of others", wrong.len()));
    assert!(
        wrong.is_empty(),
        "answers of one backend that were shown as another Service's, beside {total} right ones: {wrong:?}"
    );
    assert!(total >= at_least(LEAST_CONNECTIONS, Duration::from_secs(seconds())), "too few answers to say anything: {heard:?}");
}

/// Threads that connect to every Service, in every manner.
fn hammer(client: &Pod) -> Worker {
    let targets = (1..=SERVICES).flat_map(|number| [Via::V4, Via::V6].map(|via| cluster_ip(number).at(via, PORT)));
    let arguments = targets.map(|target| target.to_string()).flat_map(|target| {
        [["--tcp".to_owned(), target.clone()], ["--connected".to_owned(), target.clone()], ["--unconnected".to_owned(), target]]
    });
    let arguments = ["hammer", "--threads", THREADS].map(str::to_owned).into_iter().chain(arguments.flatten());
    Worker::start(client, arguments).unwrap()
}
