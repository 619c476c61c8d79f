//! Requests from many addresses of the client to all frontends, and what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use portmap_harness::dual_stack::{Both, Via};
use portmap_harness::listen::Protocol;
use portmap_harness::patience::patience;
use portmap_harness::topology::addresses;
use portmap_suites::service_objects::{PORT, cluster_ip, external_ip, load_balancer_ip, node_port};

use super::cases::Case;
use crate::cluster::Cluster;
use crate::dial::{Outcome, dial, enter};

/// The number of threads. They wait most of the time, for silent frontends.
const THREADS: usize = 96;
/// The time limits of the attempts of a request. The second admits a repeated SYN.
const LIMITS: [Duration; 2] = [Duration::from_millis(600), Duration::from_millis(1_500)];

/// The client's addresses that source ranges admit, by the last part. One of two endpoints gives no answer to any of them with
/// a probability of 1 in 2^23.
const ADMITTED: std::ops::Range<u8> = 10..34;
/// The client's address that source ranges do not admit, by the last part.
const STRANGER: u8 = 200;
/// Source ranges with the addresses whose last part is below 128.
pub const ADMITTED_RANGES: [&str; 2] = ["198.18.0.0/25", "2001:db8:12::/121"];

/// The behaviour of all frontends. The key describes the frontend.
pub type Survey = BTreeMap<String, Behaviour>;

/// The behaviour of a frontend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// The outcomes of the admitted addresses. An answer has the pod, and under the policy Local also whether the pod saw the
    /// client's address.
    answers: BTreeSet<String>,
    /// For a Service with source ranges, whether the address that is not admitted gets an answer or an error, too.
    is_open_to_strangers: Option<bool>,
    /// With session affinity, whether each address had answers of one endpoint only, at all frontends of the service port.
    keeps_sessions: Option<bool>,
}

const REFUSED: &str = "refused";
const SILENT: &str = "silent";

impl Behaviour {
    /// The number of endpoints that have answered.
    pub fn servers(&self) -> usize {
        self.answers.iter().filter(|answer| ![REFUSED, SILENT].contains(&answer.as_str())).count()
    }

    pub fn is_refused(&self) -> bool {
        self.answers.iter().eq([REFUSED])
    }

    pub fn is_silent(&self) -> bool {
        self.answers.iter().eq([SILENT])
    }

    pub fn is_filtered(&self) -> bool {
        self.is_open_to_strangers == Some(false)
    }

    pub fn keeps_sessions(&self) -> bool {
        self.keeps_sessions == Some(true)
    }
}

/// A service port in one family. One thread sends its requests one after the other, so that sessions are in order.
struct Unit<'a> {
    case: &'a Case,
    protocol: Protocol,
    via: Via,
    node: Both,
}

/// The addresses of the client with this last part.
fn client(host: u8) -> Both {
    let ([a, b, c, _], mut v6) = (addresses::CLIENT.v4.octets(), addresses::CLIENT.v6.octets());
    v6[15] = host;
    Both { v4: Ipv4Addr::new(a, b, c, host), v6: Ipv6Addr::from(v6) }
}

/// Gives the client its addresses, and a route to ClusterIPs to the router.
pub fn add_clients(cluster: &Cluster) -> Result<()> {
    for host in ADMITTED.chain([STRANGER]) {
        let Both { v4, v6 } = client(host);
        cluster.topology.client.ip(&format!("addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad"))?;
    }
    let Both { v4, v6 } = cluster.one().addresses();
    cluster.topology.router().ip(&format!("route add 10.96.0.0/16 via {v4}\nroute add fd00:10:96::/112 via {v6}"))
}

/// Sends requests to all frontends of the Services.
pub fn survey(cluster: &Cluster, cases: &[Case]) -> Result<Survey> {
    let node = cluster.one().addresses();
    let mut units = Vec::new();
    for case in cases {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            units.extend([Via::V4, Via::V6].map(|via| Unit { case, protocol, via, node }));
        }
    }
    let (next, namespace) = (AtomicUsize::new(0), cluster.topology.client.namespace());
    let work = || -> Result<Survey> {
        enter(namespace)?;
        let mut found = Survey::new();
        while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.extend(unit.survey());
        }
        Ok(found)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let mut total = Survey::new();
        for thread in threads {
            total.extend(thread.join().map_err(|_| anyhow!("a thread panicked"))??);
        }
        Ok(total)
    })
}

impl Unit<'_> {
    /// The frontends of the service port, by their kind.
    fn frontends(&self) -> Vec<(&'static str, SocketAddr)> {
        let Self { case: Case { number, is_sticky, .. }, via, node, .. } = *self;
        let mut frontends = vec![
            ("NodePort", node.at(via, node_port(*number))),
            ("ExternalIP", external_ip(*number).at(via, PORT)),
            ("LoadBalancer", load_balancer_ip(*number).at(via, PORT)),
        ];
        if !is_sticky {
            frontends.push(("ClusterIP", cluster_ip(*number).at(via, PORT)));
        }
        frontends
    }

    fn survey(&self) -> Survey {
        let Self { case, protocol, via, .. } = self;
        let (mut found, mut sessions) = (Survey::new(), BTreeMap::new());
        for (kind, target) in self.frontends() {
            let mut behaviour = Behaviour::default();
            self.ask(kind, target, &mut behaviour, &mut sessions);
            found.insert(format!("{kind} {via:?} {protocol} of {case}"), behaviour);
        }
        if case.is_sticky {
            let keeps_sessions = sessions.values().all(|servers: &BTreeSet<String>| servers.len() == 1);
            for behaviour in found.values_mut() {
                behaviour.keeps_sessions = Some(keeps_sessions);
            }
        }
        found
    }

    /// Sends requests from the client's addresses to a frontend. `sessions` gets the outcomes by address.
    fn ask(&self, kind: &str, target: SocketAddr, behaviour: &mut Behaviour, sessions: &mut BTreeMap<u8, BTreeSet<String>>) {
        let is_single = self.case.size() < 2;
        for host in ADMITTED {
            let answer = self.answer(host, kind, target);
            let is_last = answer == REFUSED || answer == SILENT || is_single && host > ADMITTED.start;
            sessions.entry(host).or_default().insert(answer.clone());
            behaviour.answers.insert(answer);
            if is_last {
                break;
            }
        }
        if self.case.has_ranges && behaviour.servers() > 0 {
            behaviour.is_open_to_strangers = Some(self.answer(STRANGER, kind, target) != SILENT);
        }
    }

    /// The outcome of a request, as a text without the client's address.
    fn answer(&self, host: u8, kind: &str, target: SocketAddr) -> String {
        let from = client(host).at(self.via, 0);
        let mut attempts = LIMITS.iter().map(|limit| dial(from, self.protocol, target, patience(*limit)));
        match attempts.find(|outcome| *outcome != Outcome::Silent) {
            None | Some(Outcome::Silent) => SILENT.to_owned(),
            Some(Outcome::Refused) => REFUSED.to_owned(),
            Some(Outcome::Failed(error)) => error,
            Some(Outcome::Answered(pod, source)) if self.case.policy == "Local" && kind != "ClusterIP" => {
                let sees = if source == Some(from.ip()) { "sees" } else { "does not see" };
                format!("{pod} {sees} the client")
            }
            Some(Outcome::Answered(pod, _)) => pod,
        }
    }
}
