//! The ports of a Service among themselves, and load balancers without source ranges.

use super::add;
use crate::lint::{
    catalog::{EQUAL_PORTS, OPEN_LOAD_BALANCER, UNNAMED_PORTS},
    finding::Finding,
    objects::service::{Service, ServicePort},
};

/// Checks a Service by itself.
pub fn check(service: &Service, findings: &mut Vec<Finding>) {
    let finding = |rule, line, what| Finding::new(rule, &service.head, line, what);
    if let [_, _, ..] = &*service.ports
        && let Some(port) = service.ports.iter().find(|port| port.name.is_empty())
    {
        let what = format!("port {} has no name, and the Service has {} ports", port.shown(), service.ports.len());
        add(findings, &service.head, finding(UNNAMED_PORTS, port.line, what));
    }
    for (index, port) in service.ports.iter().enumerate() {
        if let Some(earlier) = service.ports[..index].iter().find(|earlier| are_equal(earlier, port)) {
            let what = format!("port {} repeats the name or the number of port {}", port.shown(), earlier.shown());
            add(findings, &service.head, finding(EQUAL_PORTS, port.line, what));
        }
    }
    if service.kind == "LoadBalancer" && !service.is_restricted {
        let what = "the load balancer has no source ranges".to_owned();
        add(findings, &service.head, finding(OPEN_LOAD_BALANCER, service.kind_line, what));
    }
}

fn are_equal(one: &ServicePort, other: &ServicePort) -> bool {
    let have_one_name = one.name == other.name && !one.name.is_empty();
    have_one_name || (one.number, one.protocol) == (other.number, other.protocol)
}
