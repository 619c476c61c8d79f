//! Ingresses and routes: the ports of Services that they use.

use super::{Context, add};
use crate::lint::{
    catalog::ROUTE_PORT,
    finding::Finding,
    objects::{PortRef, route::Backend, service::Service},
};

/// Checks all references to Services of the set. A Service that is not in the set may exist elsewhere.
pub fn check(context: &Context, findings: &mut Vec<Finding>) {
    for route in &context.set.routes {
        for backend in &route.backends {
            let name = (backend.namespace.as_str(), backend.service.as_str());
            let Some(variants) = context.services.get(&name) else { continue };
            if let [service, ..] = &**variants
                && !variants.iter().any(|service| has(service, &backend.port))
            {
                let what = format!("{} is no port of Service {}", backend.port, backend.service);
                let finding = Finding::new(ROUTE_PORT, &route.head, backend.line, what).mended_by(mend(service, backend));
                add(findings, &route.head, finding);
            }
        }
    }
}

/// Whether the Service has the port. An `ExternalName` needs no ports.
fn has(service: &Service, port: &PortRef) -> bool {
    service.is_external_name()
        || service.ports.iter().any(|it| match port {
            PortRef::Number(number) => it.number == *number,
            PortRef::Name(name) | PortRef::Quoted(name) => it.name == *name,
        })
}

fn mend(service: &Service, backend: &Backend) -> String {
    let target = service.ports.iter().find(|port| port.target == backend.port);
    match target {
        Some(port) => format!("write {}, the port of the Service; {} is its targetPort", port.number, backend.port),
        None if service.ports.is_empty() => "add ports to the Service".to_owned(),
        None => format!("write a port of the Service: {}", service.shown_ports()),
    }
}
