//! Node ports: their range, and numbers that two Services claim.

use super::{Context, add};
use crate::{
    collections::HashMap,
    lint::{
        catalog::{NODE_PORT_RANGE, NODE_PORT_TWICE},
        finding::Finding,
        objects::{Protocol, service::Service},
        set::Origin,
        tree::Line,
    },
};

/// A node port of a Service.
#[derive(Clone, Copy)]
struct Claim<'a> {
    service: &'a Service,
    number: i32,
    line: Line,
    /// `None` for a health check.
    protocol: Option<Protocol>,
}

/// Checks the node ports of all Services in files. An API server has checked those of a cluster, with its own range.
pub fn check(context: &Context, findings: &mut Vec<Finding>) {
    if context.set.origin == Origin::Cluster {
        return;
    }
    let (first, last) = context.settings.node_ports;
    let mut claims = HashMap::<i32, Vec<Claim>>::default();
    for claim in context.set.services.iter().flat_map(claims_of) {
        if !(i32::from(first)..=i32::from(last)).contains(&claim.number) {
            let what = format!("the node port {} is not in {first}-{last}", claim.number);
            let mend = format!("choose a number in {first}-{last}, or give the server's range by --node-port-range");
            let finding = Finding::new(NODE_PORT_RANGE, &claim.service.head, claim.line, what).mended_by(mend);
            add(findings, &claim.service.head, finding);
        }
        let earlier = claims.entry(claim.number).or_default();
        // The earliest claim is enough: a third one is compared with the first.
        match earlier.iter().find(|other| conflict(other, &claim)) {
            Some(other) => {
                let (head, place) = (&claim.service.head, other.service.head.with_place());
                let what = format!("the node port {} is also one of {place}", claim.number);
                add(findings, head, Finding::new(NODE_PORT_TWICE, head, claim.line, what));
            }
            None => earlier.push(claim),
        }
    }
}

fn claims_of(service: &Service) -> impl Iterator<Item = Claim<'_>> {
    let ports = service.ports.iter().filter_map(|port| port.node_port.map(|at| (at, Some(port.protocol))));
    let health = service.health_check_node_port.map(|at| (at, None));
    ports.chain(health).map(move |((number, line), protocol)| Claim { service, number, line, protocol })
}

/// Whether two claims of one number exclude each other. Ports of one Service may share a number if their protocols differ. Two
/// documents with one name are variants of a Service.
fn conflict(one: &Claim, other: &Claim) -> bool {
    if std::ptr::eq(one.service, other.service) {
        return one.protocol == other.protocol || one.protocol.is_none() || other.protocol.is_none();
    }
    !one.service.head.is_same(&other.service.head)
}
