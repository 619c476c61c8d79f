//! The relations between policies, pods and Services.

use std::fmt;

use super::super::Context;
use crate::{
    collections::HashMap,
    lint::{
        head::Labels,
        objects::{
            Protocol,
            policy::{Allowance, Peer, Policy},
            workload::Workload,
        },
        selection::{self, Selected},
        set::Set,
    },
};

/// The direction of a rule.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the pods of the policy.
    Ingress,
    /// From the pods of the policy.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(if *self == Self::Ingress { "ingress" } else { "egress" })
    }
}

/// The relations. Workloads, policies and Services are indices into the lists of the set.
pub struct Relations<'a> {
    set: &'a Set,
    /// The workloads that each policy selects.
    pub selected: Vec<Selected>,
    /// The policies that select each workload.
    policies: HashMap<usize, Vec<usize>>,
    /// All namespaces with workloads, and their labels.
    namespaces: Vec<(&'a str, Labels)>,
}

impl<'a> Relations<'a> {
    /// The relations of a set. Empty without policies.
    pub fn new(context: &Context<'a>) -> Self {
        let set = context.set;
        let select = |policy: &Policy| context.index.of_selector(&policy.head.namespace, &policy.pods);
        let selected: Vec<Selected> = set.policies.iter().map(select).collect();
        let with_labels = |name| (name, set.namespace_labels(name));
        let namespaces = if selected.is_empty() { Vec::new() } else { context.index.namespaces().map(with_labels).collect() };
        Self { set, policies: selection::reversed(&selected), selected, namespaces }
    }

    /// The pods that the peers of a rule select by a selector for pods that is not empty. Other peers are too wide for
    /// conclusions.
    pub fn destinations(&self, context: &Context, policy: &Policy, peers: &[Peer]) -> Selected {
        let mut all = Selected::new();
        for peer in peers {
            let Some(pods) = peer.pods.as_ref().filter(|selector| !selector.is_empty()) else { continue };
            match &peer.namespaces {
                None => all.extend(context.index.of_selector(&policy.head.namespace, pods)),
                Some(namespaces) => {
                    for (name, _) in self.namespaces.iter().filter(|(_, labels)| namespaces.selects(labels)) {
                        all.extend(context.index.of_selector(name, pods));
                    }
                }
            }
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether some policy of one of these workloads, or `policy` itself, allows a number of a pod. For egress, all peers
    /// count, so that fewer findings result.
    pub fn allow(
        &self,
        direction: Direction,
        policy: &Policy,
        limited: &[usize],
        number: i32,
        protocol: Protocol,
        pod: &Workload,
    ) -> bool {
        let indices = limited.iter().flat_map(|workload| self.policies.get(workload).into_iter().flatten());
        let mut policies = indices.map(|index| &self.set.policies[*index]).chain([policy]);
        let allows = |rule: &Allowance| rule.allows(number, protocol, |name| pod.number_of(name, protocol));
        policies.any(|policy| {
            let rules = if direction == Direction::Ingress { &policy.ingress } else { &policy.egress };
            rules.iter().flatten().any(allows)
        })
    }
}
