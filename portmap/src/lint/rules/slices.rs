//! EndpointSlices and Endpoints that people or programs write: their ports, joined to the ports of the Service.

use super::{Context, add};
use crate::{
    collections::HashMap,
    lint::{
        catalog::{NO_SLICE_PORT, SLICE_PORT},
        finding::Finding,
        gaps::Group,
        objects::{
            Protocol,
            service::Service,
            slice::{Slice, SlicePort},
        },
    },
};

/// Checks slices in both directions.
pub fn check(context: &Context, findings: &mut Vec<Finding>) {
    let mut ports = HashMap::<(&str, &str), Vec<(&str, Protocol)>>::default();
    for slice in &context.set.slices {
        let name = (slice.head.namespace.as_str(), slice.service.as_str());
        ports.entry(name).or_default().extend(slice.ports.iter().map(|port| (port.name.as_str(), port.protocol)));
        if let Some(variants) = context.services.get(&name) {
            check_slice(slice, variants, findings);
        }
    }
    if context.set.gaps.has(Group::Slices) {
        return;
    }
    for service in context.set.services.iter().filter(|service| !is_selected(service)) {
        if let Some(ports) = ports.get(&(service.head.namespace.as_str(), service.head.name.as_str())) {
            check_service(service, ports, findings);
        }
    }
}

/// Whether Kubernetes makes the slices of the Service, or the Service has none.
fn is_selected(service: &Service) -> bool {
    service.is_external_name() || service.selector.is_some()
}

/// Checks a slice that Kubernetes did not make. Ports of a Service without any port are not compared.
fn check_slice(slice: &Slice, variants: &[&Service], findings: &mut Vec<Finding>) {
    let is_plain = |service: &&Service| service.is_external_name() || service.ports.is_empty();
    let is_made = slice.is_made || (slice.head.kind == "Endpoints" && variants.iter().any(|it| it.selector.is_some()));
    if is_made || variants.iter().any(is_plain) {
        return;
    }
    let has = |port: &SlicePort| {
        let mut all = variants.iter().flat_map(|service| &service.ports);
        all.any(|it| it.name == port.name && it.protocol == port.protocol)
    };
    for port in slice.ports.iter().filter(|port| !has(port)) {
        let what = format!("the port {} matches no port of Service {}", shown(&port.name, port.protocol), slice.service);
        let known = variants.iter().flat_map(|it| &it.ports).map(|port| shown(&port.name, port.protocol));
        let mend = format!("use name and protocol of a Service port: {}", known.collect::<Vec<_>>().join(", "));
        add(findings, &slice.head, Finding::new(SLICE_PORT, &slice.head, port.line, what).mended_by(mend));
    }
}

fn check_service(service: &Service, ports: &[(&str, Protocol)], findings: &mut Vec<Finding>) {
    for port in &service.ports {
        let key = (port.name.as_str(), port.protocol);
        if !ports.contains(&key) {
            let what = format!("the port {} is in no EndpointSlice of the Service", shown(&port.name, port.protocol));
            add(findings, &service.head, Finding::new(NO_SLICE_PORT, &service.head, port.line, what));
        }
    }
}

fn shown(name: &str, protocol: Protocol) -> String {
    if name.is_empty() { format!("without a name ({protocol})") } else { format!("{name:?} ({protocol})") }
}
