//! The targetPorts of Services, compared with the container ports of the selected pods.

use std::collections::BTreeSet;

use super::{Context, add, all_ignore, shown};
use crate::lint::{
    catalog::{NO_SUCH_NAME, OTHER_PROTOCOL, QUOTED_NUMBER, Rule, SEVERAL_NUMBERS, SOME_LACK_NAME, UNDECLARED},
    finding::Finding,
    gaps::Group,
    objects::{
        PortRef, Protocol,
        service::{Service, ServicePort},
        unquoted,
        workload::Workload,
    },
};

/// Ports of sidecars that service meshes add to pods, so that no template has them.
const INJECTED: [&str; 6] = ["dapr-grpc", "dapr-http", "dapr-metrics", "http-envoy-prom", "linkerd-admin", "linkerd-proxy"];

/// Checks all ports of a Service.
pub fn check(context: &Context, service: &Service, pods: &[&Workload], findings: &mut Vec<Finding>) {
    if service.is_external_name() {
        return;
    }
    for port in &service.ports {
        match &port.target {
            PortRef::Quoted(number) => {
                let what = format!("port {} has the targetPort {number:?} in quotes", port.shown());
                let found = Finding::new(QUOTED_NUMBER, &service.head, port.target_line, what);
                add(findings, &service.head, found.mended_by(format!("write targetPort: {}", unquoted(number))));
            }
            // Another workload may be missing that has the name.
            PortRef::Name(_) | PortRef::Number(_) if pods.is_empty() || context.set.gaps.has(Group::Pods) => {}
            PortRef::Name(name) if INJECTED.contains(&name.as_str()) => {}
            PortRef::Name(name) => findings.extend(check_name(service, port, name, pods)),
            PortRef::Number(number) => findings.extend(check_number(service, port, *number, pods)),
        }
    }
}

/// A finding about a port, unless the Service or all of the pods ignore the rule.
fn finding(service: &Service, port: &ServicePort, rule: &'static Rule, pods: &[&Workload], what: String) -> Option<Finding> {
    let is_ignored = service.head.ignored.has(rule) || all_ignore(pods, rule);
    (!is_ignored).then(|| Finding::new(rule, &service.head, port.target_line, what))
}

fn check_name(service: &Service, port: &ServicePort, name: &str, pods: &[&Workload]) -> Vec<Finding> {
    let numbers: BTreeSet<i32> = pods.iter().filter_map(|pod| pod.number_of(name, port.protocol)).collect();
    if numbers.is_empty() {
        return missing_name(service, port, name, pods).into_iter().collect();
    }
    let mut found = Vec::new();
    if numbers.len() > 1 {
        let shown_numbers = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let what = format!("the targetPort {name:?} of port {} means different numbers: {shown_numbers}", port.shown());
        found.extend(finding(service, port, SEVERAL_NUMBERS, pods, what));
    }
    let lacking = lacking(port, name, pods);
    if !lacking.is_empty() {
        let what = format!("{} has no port with the name {name:?}, the targetPort of port {}", shown(&lacking), port.shown());
        found.extend(finding(service, port, SOME_LACK_NAME, &lacking, what));
    }
    found
}

/// The pods without the name. Two documents with one name are variants of a workload, such as a patch. Pods of Jobs often share
/// labels with the pods that serve.
fn lacking<'a>(port: &ServicePort, name: &str, pods: &[&'a Workload]) -> Vec<&'a Workload> {
    let (having, lacking): (Vec<&Workload>, Vec<&Workload>) =
        pods.iter().partition(|pod| pod.number_of(name, port.protocol).is_some());
    let key = |pod: &Workload| (pod.head.kind.clone(), pod.head.name.clone());
    let having: BTreeSet<_> = having.into_iter().map(key).collect();
    lacking.into_iter().filter(|pod| !pod.is_job() && !having.contains(&key(pod))).collect()
}

fn missing_name(service: &Service, port: &ServicePort, name: &str, pods: &[&Workload]) -> Option<Finding> {
    let other = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| pods.iter().any(|pod| pod.number_of(name, *protocol).is_some()));
    let Some(other) = other else {
        let what = format!("port {} has the targetPort {name:?}, which is no port of {}", port.shown(), shown(pods));
        let found = finding(service, port, NO_SUCH_NAME, pods, what)?;
        return Some(found.mended_by(mend_name(port, pods)));
    };
    let what =
        format!("port {} has the targetPort {name:?}, which is a port of protocol {other} in {}", port.shown(), shown(pods));
    let mend = format!("write protocol: {other} in the Service port, or protocol: {} in the container port", port.protocol);
    Some(finding(service, port, OTHER_PROTOCOL, pods, what)?.mended_by(mend))
}

/// The remedy for an unknown name, with the ports that the first pod declares.
fn mend_name(port: &ServicePort, pods: &[&Workload]) -> String {
    let named = |pod: &&&Workload| pod.ports().any(|port| !port.name.is_empty());
    match pods.iter().find(named).or(pods.first()) {
        Some(pod) => format!("use a container port; {} declares {}", pod.head, pod.shown_ports()),
        None => format!("add the name {} to a container port", port.target),
    }
}

fn check_number(service: &Service, port: &ServicePort, number: i32, pods: &[&Workload]) -> Option<Finding> {
    if pods.iter().any(|pod| pod.declares(number, port.protocol)) {
        return None;
    }
    let what =
        format!("port {} leads to {number}/{}, which no container declares in {}", port.shown(), port.protocol, shown(pods));
    let found = finding(service, port, UNDECLARED, pods, what)?;
    let mend = pods
        .iter()
        .find(|pod| pod.ports().next().is_some())
        .map(|pod| format!("declare the port, or correct the targetPort; {} declares {}", pod.head, pod.shown_ports()));
    Some(match mend {
        Some(mend) => found.mended_by(mend),
        None => found,
    })
}
