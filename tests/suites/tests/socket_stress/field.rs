//! Services whose backends are replaced all the time, and the history of these backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portmap_harness::agent::Agent;
use portmap_harness::listen::{Listen, Protocol};
use portmap_harness::pod_hammer::{Visit, now};
use portmap_harness::random::Random;
use portmap_harness::world::{Pod, World};
use portmap_suites::service_objects::{Endpoint, PORT, Service, Via, cluster_ip};
use serde_json::json;

pub const SERVICES: u8 = 12;

const PODS: [&str; 4] = ["a", "b", "c", "d"];

/// Each pod listens on all of these ports, so that it has as many endpoints.
const PORTS: std::ops::Range<u16> = 9000..9008;

/// An endpoint: the index of its pod, and its port number.
type Member = (usize, u16);

/// The backends of a Service in a period. The period begins before the file is written and ends after the tables show the next
/// change. The last period has no end.
#[derive(Debug)]
struct Era {
    members: BTreeSet<Member>,
    from: Duration,
    until: Duration,
}

/// A node with pods, a client and an agent. [`Field`] itself rewrites the Services, and records their backends.
pub struct Field {
    pub agent: Agent,
    pub client: Pod,
    pods: Vec<Pod>,
    world: World,
    history: Vec<Vec<Era>>,
    random: Random,
    pub rewrites: u64,
    /// Number of endpoints added to or removed from Services. An endpoint counts once for both families.
    endpoint_changes: usize,
}

impl Field {
    pub fn new() -> Self {
        let world = World::new("socket-stress").unwrap();
        let listens: Vec<Listen> = PORTS.flat_map(|port| [Listen::tcp(port), Listen::udp(port)]).collect();
        let pod = |name: &&str| {
            let mut pod = world.pod(name).unwrap();
            pod.serve(&listens).unwrap();
            pod
        };
        let pods: Vec<Pod> = PODS.iter().map(pod).collect();
        let client = world.client("client").unwrap();
        let agent = Agent::start(&world, &[]).unwrap();
        let history = (0..SERVICES).map(|_| Vec::new()).collect();
        Self { agent, client, pods, world, history, random: Random::new(1), rewrites: 0, endpoint_changes: 0 }
    }

    /// Replaces the backends of every Service, and waits until the tables show the change.
    pub fn change(&mut self) {
        let sets: Vec<BTreeSet<Member>> = (0..SERVICES).map(|service| self.others(service.into())).collect();
        let objects: Vec<_> = (1..).zip(&sets).flat_map(|(number, set)| self.service(number, set).objects()).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let from = now();
        Agent::write(&self.world, "objects.json", &list.to_string()).unwrap();
        let expected = self.rows(&sets);
        let shown = |agent: &Agent| {
            let rows = agent.services()?;
            let rows = rows.iter().filter_map(|row| Some((row["frontend"].as_str()?.to_owned(), row["backends"].clone())));
            Ok(rows.collect::<BTreeMap<_, _>>() == expected)
        };
        self.agent.wait_until("the tables show the change", shown).unwrap();
        let until = now();
        for (eras, members) in self.history.iter_mut().zip(sets) {
            if let Some(last) = eras.last_mut() {
                last.until = until;
                self.endpoint_changes += last.members.symmetric_difference(&members).count();
            }
            eras.push(Era { members, from, until: Duration::MAX });
        }
        self.rewrites += 1;
    }

    /// A text with the numbers of changes, and their rate in this time.
    pub fn pace(&self, time: Duration) -> String {
        let Self { rewrites, endpoint_changes, .. } = self;
        let rate = *endpoint_changes as u128 * 1000 / time.as_millis().max(1);
        format!("{endpoint_changes} endpoints were added or removed in {rewrites} rewrites: {rate} a second")
    }

    /// Random endpoints that are not endpoints of the Service now: at least one, and at most half of all endpoints.
    fn others(&mut self, service: usize) -> BTreeSet<Member> {
        let current = self.history[service].last().map(|era| era.members.clone()).unwrap_or_default();
        let wanted = 1 + self.random.below(PODS.len() * PORTS.len() / 2);
        let mut set = BTreeSet::new();
        while set.len() < wanted {
            let port = PORTS.start + u16::try_from(self.random.below(PORTS.len())).unwrap();
            set.extend(Some((self.random.below(PODS.len()), port)).filter(|member| !current.contains(member)));
        }
        set
    }

    fn service(&self, number: u8, set: &BTreeSet<Member>) -> Service {
        let endpoints = set.iter().map(|(pod, port)| Endpoint::of(&self.pods[*pod]).port(*port));
        Service::new(&format!("s{number}"), number).endpoints(endpoints)
    }

    /// The backends of each frontend, as `portmap services` prints them.
    fn rows(&self, sets: &[BTreeSet<Member>]) -> BTreeMap<String, serde_json::Value> {
        let rows = (1..).zip(sets).flat_map(|(number, set)| {
            [Via::V4, Via::V6].into_iter().flat_map(move |via| {
                let backends = set.iter().map(|(pod, port)| {
                    let pod = &self.pods[*pod];
                    let address: IpAddr = if via == Via::V4 { pod.ipv4().into() } else { pod.ipv6().into() };
                    SocketAddr::new(address, *port)
                });
                let backends: BTreeSet<_> = backends.collect();
                let backends = json!(backends);
                [Protocol::Tcp, Protocol::Udp]
                    .map(|protocol| (format!("{}/{protocol}", cluster_ip(number).at(via, PORT)), backends.clone()))
            })
        });
        rows.collect()
    }

    /// The UDP answers of the current backends of each Service.
    pub fn answers(&self) -> Vec<BTreeSet<String>> {
        let answer = |(pod, port): &Member| format!("{} {port}/UDP", PODS[*pod]);
        self.history.iter().map(|eras| eras.last().unwrap().members.iter().map(answer).collect()).collect()
    }

    /// An error text if the backend of this answer was not a member of the Service during the call. `None` also if the target
    /// is no ClusterIP of a Service, or the answer names no port.
    pub fn misdirection(&self, visit: &Visit, answer: &str) -> Option<String> {
        let service = (1..=SERVICES).position(|number| cluster_ip(number).addresses().contains(&visit.target.ip()))?;
        let (pod, port) = answer.split_once(' ')?;
        let pod = PODS.iter().position(|name| *name == pod);
        let port = port.split('/').next().and_then(|port| port.parse().ok());
        let member = pod.zip(port);
        let is_of = |era: &&Era| member.is_some_and(|member| era.members.contains(&member));
        let eras = &self.history[service];
        let first = eras.partition_point(|era| era.until < visit.start);
        let mut meanwhile = eras.iter().skip(first).take_while(|era| era.from <= visit.end);
        let times = || eras.iter().filter(is_of).map(|era| (era.from, era.until)).collect::<Vec<_>>();
        (!meanwhile.any(|era| is_of(&era))).then(|| format!("{visit:?}: the backend was a member in {:?}", times()))
    }
}
