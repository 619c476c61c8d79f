//! From a destination to the frontends to explain.

use std::collections::BTreeMap;

use super::{
    Explanation, Known,
    target::{PortTarget, ServiceTarget, Target},
    written::Written,
};
use crate::model::{Family, Frontend, FrontendSpec, ObjectName, object};

/// The namespace of a Service without a given one.
const DEFAULT_NAMESPACE: &str = "default";

impl ServiceTarget {
    /// The Service that is meant. Without a namespace: the one in the namespace `default`, else the only one of this name.
    /// If there is none, or several: the explanation.
    fn choose<'a>(&self, all: &'a BTreeMap<ObjectName, Written>) -> Result<&'a Written, Box<Explanation>> {
        let same_name: Vec<&Written> = all.values().filter(|written| *written.name.name() == self.name).collect();
        let namespace = self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let in_namespace = same_name.iter().find(|written| *written.name.namespace() == *namespace);
        match (in_namespace, same_name.as_slice()) {
            (Some(written), _) => return Ok(written),
            (None, [only]) if self.namespace.is_none() => return Ok(only),
            (None, _) => {}
        }
        let namespaces: Vec<&str> = same_name.iter().map(|written| written.name.namespace()).collect();
        let (code, text) = if namespaces.is_empty() {
            let place = self.namespace.as_ref().map(|namespace| format!(" in the namespace {namespace}")).unwrap_or_default();
            ("unknownService", format!("there is no Service {}{place}", self.name))
        } else if self.namespace.is_some() {
            let text =
                format!("there is no Service {} in the namespace {namespace}, but in {}", self.name, namespaces.join(", "));
            ("unknownService", text)
        } else {
            let names = namespaces.join(", ");
            (
                "severalServices",
                format!("the namespaces {names} have a Service {name}; give svc/{name}.NAMESPACE", name = self.name),
            )
        };
        Err(Explanation::of_service(self, None, code, text).into())
    }

    fn takes(&self, port: &object::Port) -> bool {
        self.port.as_ref().is_none_or(|wanted| wanted.matches(port.port, &port.name))
            && self.protocol.is_none_or(|wanted| wanted == port.protocol)
    }
}

impl Known<'_> {
    /// The Service that decides about a destination; `None` if no Service has it.
    pub fn service_of(&self, target: &Target) -> Option<ObjectName> {
        match target {
            Target::Frontend(frontend) => self.desired.table().winner(frontend).map(|(_, service)| service.clone()),
            Target::Service(target) => target.choose(self.written).ok().map(|written| written.name.clone()),
        }
    }

    /// Explains a destination: one frontend, or each ClusterIP and port of a Service that it names. An explanation without a
    /// frontend tells why there is none.
    pub fn explain(&self, target: &Target) -> Vec<(Option<Frontend>, Explanation)> {
        let target = match target {
            Target::Frontend(frontend) => return vec![(Some(*frontend), Explanation::of_frontend(self, frontend))],
            Target::Service(target) => target,
        };
        let found = target.choose(self.written).and_then(|written| Ok((written, self.frontends(target, written)?)));
        let (written, frontends) = match found {
            Ok(found) => found,
            Err(explanation) => return vec![(None, *explanation)],
        };
        let explained = frontends.into_iter().map(|frontend| {
            let mut explanation = Explanation::of_frontend(self, &frontend);
            let node_port = explanation.port.as_ref().and_then(|port| port.node_port);
            explanation.other_addresses = self.other_addresses(&written.name, &frontend, node_port);
            (Some(frontend), explanation)
        });
        explained.collect()
    }

    /// The frontends of a Service's ClusterIPs for the ports that the target names. If there are none: the explanation.
    fn frontends(&self, target: &ServiceTarget, written: &Written) -> Result<Vec<Frontend>, Box<Explanation>> {
        let name = &written.name;
        let unserved = |code, text| Explanation::of_service(target, Some(name), code, text);
        if let Some((code, text)) = written.unserved() {
            return Err(unserved(code, text).into());
        }
        let service = self.desired.store().service_objects(name).map(|objects| objects.service);
        let (ports, addresses) = service.map(|service| (service.ports, service.cluster_ips)).unwrap_or_default();
        let mut frontends = Vec::new();
        for port in ports.iter().filter(|port| target.takes(port)) {
            let on = |address| Frontend { address, port: port.port, protocol: port.protocol };
            frontends.extend(Family::ALL.iter().filter_map(|family| *addresses.get(*family)).map(on));
        }
        if !frontends.is_empty() {
            return Ok(frontends);
        }
        let mut explanation = unserved("undefinedPort", undefined_port(target, written));
        explanation.notes = self.skipped(name);
        Err(explanation.into())
    }

    /// The other frontends and node ports of a Service port, besides its ClusterIPs, in order.
    fn other_addresses(&self, service: &ObjectName, frontend: &Frontend, node_port: Option<u16>) -> Vec<String> {
        let is_meant = |spec: &FrontendSpec| {
            let port = if spec.address.is_none() { node_port } else { Some(frontend.port) };
            (spec.protocol, Some(spec.port), spec.family) == (frontend.protocol, port, frontend.family())
                && spec.address != Some(frontend.address)
        };
        let own = self.desired.table().iter().filter(|(spec, owner)| *owner == service && is_meant(spec));
        own.map(|(spec, _)| spec.to_string()).collect()
    }

    /// The frontends that a Service claims, and other Services hold, as sentences.
    pub fn lost(&self, service: &ObjectName) -> Vec<String> {
        let table = self.desired.table();
        let conflicts = table.frontend_specs().flat_map(|spec| {
            let own = table.conflicts(spec).filter(|(claimant, holder)| *claimant == service && holder != claimant);
            own.map(move |(_, holder)| format!("{spec} of this Service belongs to Service {holder}"))
        });
        conflicts.collect()
    }
}

fn undefined_port(target: &ServiceTarget, written: &Written) -> String {
    let (name, ports) = (&written.name, written.ports());
    let wanted = match (&target.port, target.protocol) {
        (Some(port), Some(protocol)) => format!("{port}/{protocol}"),
        (Some(port), None) => port.to_string(),
        (None, Some(protocol)) => format!("of {protocol}"),
        (None, None) => return format!("Service {name} has no port that portmap serves; its ports are {ports}"),
    };
    let hint = match target.port {
        Some(PortTarget::Number(number)) => written.meant_by(number),
        Some(PortTarget::Name(_)) | None => String::new(),
    };
    format!("Service {name} has no port {wanted}; its ports are {ports}{hint}")
}
