//! The rows of `portmap top`: rates of each Service port, from counters read twice.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use arcstr::ArcStr;
use foldhash::fast::RandomState;
use portmap_common::Counters;
use serde::Serialize;
use smallvec::SmallVec;

use crate::model::{ObjectName, ServicePort};

/// The counters of each Service port, by its id, summed over its frontends.
pub type Sums = HashMap<u64, Counters, RandomState>;

/// The names of a Service port as texts, and its ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    service: ObjectName,
    /// The name of the Service port.
    port: ArcStr,
    /// `TCP` or `UDP`.
    protocol: &'static str,
    /// The ids: one for clients on the node, and another one for load balancers with source ranges.
    ids: SmallVec<[u64; 2]>,
}

/// The rates of one Service port. The names and values of its JSON are a stable contract.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The Service, as `namespace/name`.
    pub service: ObjectName,
    /// The name of the Service port; empty if it has none.
    pub port: ArcStr,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// New connections and datagrams to a backend, per second.
    pub forwarded_per_second: f64,
    /// Connections that got an error, per second.
    pub refused_per_second: f64,
    /// Connections that got no answer, per second.
    pub dropped_per_second: f64,
    /// The backends that connections went to since the start, the most used first; none if nothing is known about them.
    pub backends: Vec<Share>,
}

/// The part of a Service port's connections that went to one backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// The backend's address and port.
    pub backend: SocketAddr,
    /// The pod of the backend, as `namespace/name`, if it is known.
    pub pod: Option<ObjectName>,
    /// The number of connections.
    pub connections: u64,
    /// The part of all connections, from 0 to 1.
    pub share: f64,
}

/// The connections that were seen for each backend, by the id of the Service port.
#[derive(Clone, Debug, Default)]
pub struct Seen(HashMap<u64, HashMap<SocketAddr, u64>>);

/// The order of rows. Equal rows are in the order of their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// The most connections first
    #[default]
    Connections,
    /// The most refused and dropped connections first
    Failures,
    /// By namespace and name
    Name,
}

impl Seen {
    /// Counts a connection.
    pub fn add(&mut self, id: u64, backend: SocketAddr) {
        *self.0.entry(id).or_default().entry(backend).or_default() += 1;
    }

    /// Forgets all connections.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The shares of the backends of a Service port, which may have several ids.
    fn shares(&self, ids: &[u64]) -> Vec<Share> {
        if ids.iter().all(|id| !self.0.contains_key(id)) {
            return Vec::new();
        }
        let mut backends: BTreeMap<SocketAddr, u64> = BTreeMap::new();
        for (backend, connections) in ids.iter().filter_map(|id| self.0.get(id)).flatten() {
            *backends.entry(*backend).or_default() += connections;
        }
        let all: u64 = backends.values().sum();
        let mut sorted: Vec<(SocketAddr, u64)> = backends.into_iter().collect();
        sorted.sort_by_key(|(backend, connections)| (u64::MAX - *connections, *backend));
        let share = |(backend, connections): (SocketAddr, u64)| Share {
            backend,
            pod: None,
            connections,
            share: per(connections, float(all)),
        };
        sorted.into_iter().map(share).collect()
    }
}

impl Share {
    /// The backend's pod and port as text, or its address and port if the pod is not known.
    pub fn text(&self) -> String {
        match &self.pod {
            Some(pod) => format!("p/{pod}:{}", self.backend.port()),
            None => self.backend.to_string(),
        }
    }
}

impl Row {
    /// Refused and dropped connections, per second.
    pub fn failures(&self) -> f64 {
        self.refused_per_second + self.dropped_per_second
    }
}

/// The Service ports of these ids, in the order of their names.
pub fn ports<'a>(names: impl IntoIterator<Item = (u64, &'a ServicePort)>) -> Vec<NamedPort> {
    let mut ids: BTreeMap<&ServicePort, SmallVec<[u64; 2]>> = BTreeMap::new();
    for (id, owner) in names {
        ids.entry(owner).or_default().push(id);
    }
    let port = |(owner, ids): (&ServicePort, SmallVec<[u64; 2]>)| NamedPort {
        service: owner.service.clone(),
        port: owner.port.clone(),
        protocol: owner.protocol.name(),
        ids,
    };
    ids.into_iter().map(port).collect()
}

/// The rows of all Service ports. `elapsed`: the time between the two readings of the counters.
pub fn rows(ports: &[NamedPort], [before, after]: [&Sums; 2], elapsed: Duration, seen: &Seen, order: Order) -> Vec<Row> {
    let row = |NamedPort { service, port, protocol, ids }: &NamedPort| {
        let mut grown = Counters::default();
        for id in ids {
            grown += growth(before.get(id).copied().unwrap_or_default(), after.get(id).copied().unwrap_or_default());
        }
        let rate = |count| per(count, elapsed.as_secs_f64());
        Row {
            service: service.clone(),
            port: port.clone(),
            protocol,
            forwarded_per_second: rate(grown.forwarded),
            refused_per_second: rate(grown.refused),
            dropped_per_second: rate(grown.dropped),
            backends: seen.shares(ids),
        }
    };
    let mut rows: Vec<Row> = ports.iter().map(row).collect();
    // These sorts are stable: equal rows stay in the order of their names.
    match order {
        Order::Connections => rows.sort_by(|one, other| other.forwarded_per_second.total_cmp(&one.forwarded_per_second)),
        Order::Failures => rows.sort_by(|one, other| other.failures().total_cmp(&one.failures())),
        Order::Name => {}
    }
    rows
}

/// The counts since an earlier reading. A service entry that was written anew begins with 0.
fn growth(before: Counters, after: Counters) -> Counters {
    Counters {
        forwarded: after.forwarded.saturating_sub(before.forwarded),
        refused: after.refused.saturating_sub(before.refused),
        dropped: after.dropped.saturating_sub(before.dropped),
    }
}

fn per(count: u64, whole: f64) -> f64 {
    if whole > 0.0 { float(count) / whole } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    fn owner(name: &str) -> ServicePort {
        ServicePort { service: ObjectName::new("shop", name), port: "http".into(), protocol: Protocol::Tcp }
    }

    fn names() -> Vec<NamedPort> {
        ports([(1, &owner("web")), (2, &owner("cart")), (3, &owner("idle"))])
    }

    fn sums<const N: usize>(counters: [(u64, Counters); N]) -> Sums {
        counters.into_iter().collect()
    }

    fn counters(forwarded: u64, refused: u64, dropped: u64) -> Counters {
        Counters { forwarded, refused, dropped }
    }

    fn shown(order: Order) -> Vec<(String, f64, f64)> {
        let before = sums([(1, counters(100, 5, 0)), (2, counters(50, 0, 0))]);
        let after = sums([(1, counters(120, 5, 0)), (2, counters(60, 3, 1))]);
        let rows = rows(&names(), [&before, &after], Duration::from_secs(2), &Seen::default(), order);
        rows.into_iter().map(|row| (row.service.to_string(), row.forwarded_per_second, row.failures())).collect()
    }

    #[test]
    fn rates_are_sorted() {
        let [web, cart, idle] = [("shop/web", 10.0, 0.0), ("shop/cart", 5.0, 2.0), ("shop/idle", 0.0, 0.0)]
            .map(|(name, forwarded, failures)| (name.to_owned(), forwarded, failures));
        assert_eq!(shown(Order::Connections), [web.clone(), cart.clone(), idle.clone()]);
        assert_eq!(shown(Order::Failures), [cart.clone(), idle.clone(), web.clone()]);
        assert_eq!(shown(Order::Name), [cart, idle, web]);
    }

    /// A Service port has one id for clients on the node and another one for load balancers with source ranges.
    #[test]
    fn ids_of_one_service_port_are_added_up() {
        let names = ports([(1, &owner("web")), (4, &owner("web"))]);
        let (before, after) = (sums([]), sums([(1, counters(3, 0, 0)), (4, counters(1, 2, 0))]));
        let mut seen = Seen::default();
        let backend: SocketAddr = ([10, 244, 0, 2], 8080).into();
        seen.add(1, backend);
        seen.add(4, backend);
        let rows = rows(&names, [&before, &after], Duration::from_secs(1), &seen, Order::Connections);
        let found: Vec<_> = rows.iter().map(|row| (row.forwarded_per_second, row.refused_per_second)).collect();
        assert_eq!(found, [(4.0, 2.0)]);
        assert_eq!(rows[0].backends, [Share { backend, pod: None, connections: 2, share: 1.0 }]);
    }

    #[test]
    fn counters_that_begin_anew_give_no_negative_rate() {
        let (before, after) = (sums([(1, counters(100, 0, 0))]), sums([(1, counters(3, 0, 0))]));
        let rows = rows(&names(), [&before, &after], Duration::from_secs(1), &Seen::default(), Order::Connections);
        assert!(rows.iter().all(|row| row.forwarded_per_second == 0.0), "{rows:?}");
    }

    #[test]
    fn shares_add_up_and_the_most_used_is_first() {
        let mut seen = Seen::default();
        for (last, connections) in [(2, 1), (3, 3)] {
            (0..connections).for_each(|_| seen.add(1, ([10, 244, 0, last], 8080).into()));
        }
        let shares: Vec<(String, u64, f64)> =
            seen.shares(&[1]).into_iter().map(|share| (share.text(), share.connections, share.share)).collect();
        assert_eq!(shares, [("10.244.0.3:8080".to_owned(), 3, 0.75), ("10.244.0.2:8080".to_owned(), 1, 0.25)]);
        seen.clear();
        assert_eq!(seen.shares(&[1]), []);
    }
}
