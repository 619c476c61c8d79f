//! The Services of the comparison: each traffic policy with each mixture of endpoints, with and without session affinity and
//! source ranges.

use std::fmt;

use portmap_suites::service_objects::{Endpoint, Service};
use serde_json::json;

use super::survey::ADMITTED_RANGES;
use crate::cluster::Cluster;

/// The number of the first Service.
const FIRST: u8 = 10;
/// The `healthCheckNodePort` of a Service is this plus its number. The API server would otherwise pick a port, and could pick the
/// node port of a later Service.
const HEALTH_CHECKS: u16 = 31_000;
/// The timeout of sessions in seconds.
const TIMEOUT: u32 = 10_800;

/// The state of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// Terminating, and still serving.
    Terminating,
    /// Terminating, and not serving.
    NotServing,
}
use State::{NotServing, Ready, Terminating};

/// Mixtures of endpoints: indices of [`Cluster::pods`], the first two of which are on node 1, and their states.
const ENDPOINTS: [&[(usize, State)]; 11] = [
    &[],
    &[(0, Ready)],
    &[(0, Ready), (1, Ready)],
    &[(2, Ready)],
    &[(2, Ready), (3, Ready)],
    &[(0, Ready), (2, Ready)],
    &[(0, Terminating), (2, Ready)],
    &[(0, Ready), (2, Terminating)],
    &[(0, Terminating), (2, Terminating)],
    &[(2, Terminating)],
    &[(0, NotServing), (2, NotServing)],
];

/// A Service.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its number, which selects its addresses and node port.
    pub number: u8,
    /// `externalTrafficPolicy`
    pub policy: &'static str,
    endpoints: &'static [(usize, State)],
    /// Whether clients have sessions.
    pub is_sticky: bool,
    /// Whether the load balancer admits only some clients.
    pub has_ranges: bool,
}

impl Case {
    /// All combinations.
    pub fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for policy in ["Cluster", "Local"] {
            for endpoints in ENDPOINTS {
                for (is_sticky, has_ranges) in [(false, false), (true, false), (false, true), (true, true)] {
                    let number = FIRST.saturating_add(u8::try_from(cases.len()).unwrap_or(u8::MAX));
                    cases.push(Self { number, policy, endpoints, is_sticky, has_ranges });
                }
            }
        }
        cases
    }

    /// The number of endpoints, usable or not.
    pub fn size(&self) -> usize {
        self.endpoints.len()
    }

    /// The Service, with addresses of each kind.
    pub fn service(&self, cluster: &Cluster) -> Service {
        let mut spec = json!({"externalTrafficPolicy": self.policy});
        if self.policy == "Local" {
            spec["healthCheckNodePort"] = json!(HEALTH_CHECKS + u16::from(self.number));
        }
        if self.has_ranges {
            spec["loadBalancerSourceRanges"] = json!(ADMITTED_RANGES);
        }
        let name = format!("s{}", self.number);
        let service = Service::new(&name, self.number).exposed(self.number).spec(spec);
        let service = service.endpoints(self.endpoints.iter().map(|endpoint| object(cluster, *endpoint)));
        if self.is_sticky { service.sticky(TIMEOUT) } else { service }
    }
}

fn object(cluster: &Cluster, (pod, state): (usize, State)) -> Endpoint {
    let endpoint = Endpoint::of(&cluster.pods[pod]).node(cluster.topology.nodes[pod / 2].name());
    match state {
        Ready => endpoint,
        Terminating => endpoint.terminating(),
        NotServing => endpoint.not_serving(),
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, policy, endpoints, is_sticky, has_ranges } = self;
        write!(f, "Service {number}: policy {policy}, endpoints {endpoints:?}")?;
        f.write_str(if *is_sticky { ", sessions" } else { "" })?;
        f.write_str(if *has_ranges { ", source ranges" } else { "" })
    }
}
