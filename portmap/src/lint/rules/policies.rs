//! NetworkPolicies: their ports, compared with the ports of the pods that they select and with the Services of these pods.
//!
//! A policy applies to the port of a pod. A rule that has the port of a Service instead allows nothing, unless the pods also
//! serve that port.

mod relations;

use super::{Context, add};
use crate::lint::{
    catalog::{Level, POLICY_NAME, POLICY_PORT, QUOTED_NUMBER},
    finding::Finding,
    gaps::Group,
    objects::{
        PortRef,
        policy::{Policy, PolicyPort},
        service::{Service, ServicePort},
        unquoted,
        workload::Workload,
    },
};
use relations::{Direction, Relations};

/// Checks all policies, unless documents are missing on which the conclusions depend.
pub fn check(context: &Context, findings: &mut Vec<Finding>) {
    let relations = Relations::new(context);
    for (index, policy) in context.set.policies.iter().enumerate() {
        let scope = Scope { context, relations: &relations, policy, sources: &relations.selected[index] };
        for rule in policy.ingress.iter().flatten() {
            scope.check_ports(Direction::Ingress, &rule.ports, scope.sources, findings);
        }
        for rule in policy.egress.iter().flatten() {
            let destinations = relations.destinations(context, policy, &rule.peers);
            scope.check_ports(Direction::Egress, &rule.ports, &destinations, findings);
        }
    }
}

/// A policy, and the objects around it.
struct Scope<'a> {
    context: &'a Context<'a>,
    relations: &'a Relations<'a>,
    policy: &'a Policy,
    /// The pods to which the policy applies.
    sources: &'a [usize],
}

/// A Service whose port a policy allows, and one of its pods.
struct Confusion<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    pod: &'a Workload,
    /// The number that the pod serves.
    number: i32,
}

impl Scope<'_> {
    /// Checks the ports of a rule. `pods`: the pods that serve the ports.
    fn check_ports(&self, direction: Direction, ports: &[PolicyPort], pods: &[usize], findings: &mut Vec<Finding>) {
        for port in ports {
            let finding = match &port.port {
                Some(PortRef::Quoted(number)) => Some(self.quoted(port, number)),
                Some(PortRef::Name(name)) => self.check_name(direction, port, name, pods),
                Some(PortRef::Number(number)) if port.end.is_none() => self.check_number(direction, port, *number, pods),
                Some(PortRef::Number(_)) | None => None,
            };
            if let Some(finding) = finding {
                add(findings, &self.policy.head, finding);
            }
        }
    }

    fn quoted(&self, port: &PolicyPort, number: &str) -> Finding {
        let what = format!("the {} port {number:?} is in quotes", port.protocol);
        let mend = format!("write port: {}", unquoted(number));
        Finding::new(QUOTED_NUMBER, &self.policy.head, port.line, what).mended_by(mend)
    }

    /// Whether the selected pods are all pods of the rule: none is missing from the set.
    fn is_complete(&self) -> bool {
        let Self { context, policy, .. } = self;
        let may_have_more = policy.pods.is_empty() && context.set.makers.may_make_pods_in(&policy.head.namespace);
        !context.set.gaps.has(Group::Pods) && !may_have_more
    }

    fn check_name(&self, direction: Direction, port: &PolicyPort, name: &str, pods: &[usize]) -> Option<Finding> {
        let pods = self.context.workloads(pods);
        let is_known = pods.iter().any(|pod| pod.number_of(name, port.protocol).is_some());
        if pods.is_empty() || is_known || !self.is_complete() || super::all_ignore(&pods, POLICY_NAME) {
            return None;
        }
        let what = format!("the {direction} port {name:?} ({}) is no port of {}", port.protocol, super::shown(&pods));
        let mend = format!("write the name of a container port; {} declares {}", pods[0].head, pods[0].shown_ports());
        Some(Finding::new(POLICY_NAME, &self.policy.head, port.line, what).mended_by(mend))
    }

    fn check_number(&self, direction: Direction, port: &PolicyPort, number: i32, pods: &[usize]) -> Option<Finding> {
        let gaps = &self.context.set.gaps;
        let may_be_allowed =
            gaps.has(Group::Policies) || gaps.has(Group::Services) || self.context.set.makers.has_other_policies;
        if may_be_allowed || !self.is_complete() || pods.iter().any(|pod| self.context.serves(*pod, number, port.protocol)) {
            return None;
        }
        let Confusion { service, port: service_port, pod, number: right } =
            pods.iter().find_map(|pod| self.confusion(direction, port, number, *pod))?;
        if pod.head.ignored.has(POLICY_PORT) {
            return None;
        }
        let name = &service.head.name;
        let what = format!(
            "the {direction} port {number}/{} is a port of Service {name}, but {} serves it on {right}",
            port.protocol,
            pod.head.with_place()
        );
        let mend = match &service_port.target {
            PortRef::Name(name) => format!("allow port {right} or {name:?}, the targetPort, instead of {number}"),
            PortRef::Number(_) | PortRef::Quoted(_) => format!("allow port {right}, the targetPort, instead of {number}"),
        };
        let level = if pod.declares(right, port.protocol) { Level::Error } else { Level::Warning };
        Some(Finding::new(POLICY_PORT, &self.policy.head, port.line, what).at_level(level).mended_by(mend))
    }

    /// A Service of the pod with this port, if the policies do not allow the port's number in the pod.
    fn confusion(&self, direction: Direction, port: &PolicyPort, number: i32, pod: usize) -> Option<Confusion<'_>> {
        let workload = &self.context.set.workloads[pod];
        let limited = if direction == Direction::Ingress { &[pod][..] } else { self.sources };
        self.context.services_of(pod).find_map(|service| {
            let is_meant = |it: &&ServicePort| it.number == number && it.protocol == port.protocol;
            let it = service.ports.iter().find(is_meant)?;
            let right = workload.resolve(&it.target, it.protocol)?;
            let is_allowed = self.relations.allow(direction, self.policy, limited, right, port.protocol, workload);
            (!is_allowed).then_some(Confusion { service, port: it, pod: workload, number: right })
        })
    }
}
