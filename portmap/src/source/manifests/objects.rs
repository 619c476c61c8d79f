//! The objects of one or several manifest files, and the selection that is sent to the agent.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1 as core;

use super::{faults::Faults, kinds, mirror, pods};
use crate::model::{
    Family, ObjectName,
    event::{Object, ObjectKind, Wanted},
    object::{self, EndpointSlice, HEADLESS_LABEL, MANAGED_BY_LABEL, ServiceType, is_labelled},
};

/// The most names that a warning lists; further names are counted.
const SHOWN: usize = 3;

/// The value of `MANAGED_BY_LABEL` on slices that are derived from Endpoints.
const MIRRORING_CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";

/// All objects of a kind by name. An unchanged object keeps its `Arc`.
pub type All<T> = BTreeMap<ObjectName, Arc<T>>;

/// The objects that are sent to the agent, by kind and name.
pub type Selection = BTreeMap<(ObjectKind, ObjectName), Arc<Object>>;

/// A Service in a manifest file.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The Service as it is sent to the agent.
    pub object: Arc<Object>,
    /// Whether this portmap serves the Service, and no other proxy does.
    pub is_ours: bool,
    /// The whole spec. Its selector and targetPorts are needed to make slices from Pods and Endpoints.
    pub spec: core::ServiceSpec,
    /// Whether the status has an address of a load balancer.
    pub has_ingress: bool,
}

/// An EndpointSlice in a manifest file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The EndpointSlice as it is sent to the agent.
    pub object: Arc<Object>,
    /// Whether the slice belongs to a headless Service.
    pub is_headless: bool,
    /// Whether a controller derived the slice from Endpoints.
    pub is_mirrored: bool,
}

/// The objects of one or several files, of all kinds that are read.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// `v1/Service`.
    pub services: All<Service>,
    /// `discovery.k8s.io/v1/EndpointSlice`.
    pub slices: All<Slice>,
    /// `v1/Pod`.
    pub pods: All<core::Pod>,
    /// `v1/Endpoints`.
    pub endpoints: All<core::Endpoints>,
    /// `v1/Node`.
    pub nodes: All<Object>,
    /// `networking.k8s.io/v1/ServiceCIDR`.
    pub cidrs: All<Object>,
}

impl Service {
    /// Converts a Service. `wanted` decides whether portmap serves it.
    pub fn new(raw: core::Service, wanted: &Wanted) -> Self {
        let is_ours = wanted.is_ours(&raw.metadata);
        let spec = raw.spec.clone().unwrap_or_default();
        let balancer = raw.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let has_ingress = balancer.is_some_and(|balancer| balancer.ingress.is_some());
        let object = if is_ours { Object::service(raw) } else { Object::other_service(raw) };
        Self { object: Arc::new(object), is_ours, spec, has_ingress }
    }

    /// Whether a served Service lacks the ClusterIP that an API server would allocate.
    fn lacks_address(&self) -> bool {
        let Self { is_ours, spec, .. } = self;
        let mut addresses = spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten());
        *is_ours && spec.type_.as_deref() != Some("ExternalName") && addresses.all(String::is_empty)
    }

    /// Whether a served Service has an internal or external traffic policy `Local`.
    fn is_local(&self) -> bool {
        let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        self.is_ours && (is_local(&self.spec.internal_traffic_policy) || is_local(&self.spec.external_traffic_policy))
    }

    /// The reason why an API server would reject an update to `next`: a new fault, or the loss of the ClusterIP or of all
    /// ports. `None` if no such reason applies.
    fn rejection(&self, next: &Self) -> Option<String> {
        let (Object::Service(_, before), Object::Service(_, after)) = (&*self.object, &*next.object) else { return None };
        let (before, after) = (before.unpack(), after.unpack());
        if let Some(fault) = new_fault(&before.faults, &after.faults) {
            return Some(fault);
        }
        let has_address = |service: &object::Service| Family::ALL.iter().any(|it| service.cluster_ips.get(*it).is_some());
        if after.kind == ServiceType::ExternalName || !has_address(&before) {
            return None;
        }
        if next.lacks_address() {
            return Some("it has no clusterIP any more".to_owned());
        }
        let has_ports = |spec: &core::ServiceSpec| spec.ports.iter().flatten().next().is_some();
        let is_lost = has_address(&after) && has_ports(&self.spec) && !has_ports(&next.spec);
        is_lost.then(|| "it has no ports any more".to_owned())
    }
}

impl Slice {
    /// Converts an EndpointSlice for the node of the agent.
    pub fn new(raw: EndpointSlice, wanted: &Wanted) -> Self {
        let manager = raw.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY_LABEL));
        Self {
            is_headless: is_labelled(&raw.metadata, HEADLESS_LABEL),
            is_mirrored: manager.is_some_and(|manager| manager == MIRRORING_CONTROLLER),
            object: Arc::new(Object::slice(raw, &wanted.node)),
        }
    }

    /// The reason why an API server would reject an update to `next`: a new fault. `None` without such a fault.
    fn rejection(&self, next: &Self) -> Option<String> {
        let (Object::Slice(_, before), Object::Slice(_, after)) = (&*self.object, &*next.object) else { return None };
        new_fault(&before.unpack().faults, &after.unpack().faults)
    }
}

/// The Service that the label of an EndpointSlice names; `None` without the label, and for other kinds.
pub fn service_of(object: &Object) -> Option<&ObjectName> {
    match object {
        Object::Slice(head, _) => head.service.as_ref(),
        Object::Service(..) | Object::OtherService(..) | Object::Node(..) | Object::ServiceCidr(..) => None,
    }
}

/// All faults of an object that an API server would reject. `None` if it would accept the object, or would have rejected the
/// former object.
fn new_fault(before: &object::Faults, after: &object::Faults) -> Option<String> {
    let is_worse = after.is_refused() && !before.is_refused();
    is_worse.then(|| after.iter().collect::<Vec<_>>().join("; "))
}

impl Objects {
    /// Keeps objects of the file's former content: objects whose update an API server would reject, and missing objects that
    /// may be documents with a fault.
    pub fn keep_former(&mut self, before: &Self, faults: &mut Faults) {
        let Self { services, slices, pods, endpoints, nodes, cidrs } = before;
        keep(kinds::SERVICE, services, &mut self.services, faults, Service::rejection);
        keep(kinds::SLICE, slices, &mut self.slices, faults, Slice::rejection);
        keep(kinds::POD, pods, &mut self.pods, faults, |_, _| None);
        keep(kinds::ENDPOINTS, endpoints, &mut self.endpoints, faults, |_, _| None);
        keep(kinds::NODE, nodes, &mut self.nodes, faults, |_, _| None);
        keep(kinds::SERVICE_CIDR, cidrs, &mut self.cidrs, faults, |_, _| None);
    }

    /// Whether an object of the former content is missing.
    pub fn lacks_any_of(&self, before: &Self) -> bool {
        let Self { services, slices, pods, endpoints, nodes, cidrs } = before;
        lacks(&self.services, services)
            || lacks(&self.slices, slices)
            || lacks(&self.pods, pods)
            || lacks(&self.endpoints, endpoints)
            || lacks(&self.nodes, nodes)
            || lacks(&self.cidrs, cidrs)
    }

    /// Merges the objects of several files. If an object is in two files, the last one is used, with a warning.
    pub fn merge<'a>(files: impl Iterator<Item = &'a Self>, warnings: &mut Vec<String>) -> Self {
        let mut all = Self::default();
        for Self { services, slices, pods, endpoints, nodes, cidrs } in files {
            extend(kinds::SERVICE, &mut all.services, services, warnings);
            extend(kinds::SLICE, &mut all.slices, slices, warnings);
            extend(kinds::POD, &mut all.pods, pods, warnings);
            extend(kinds::ENDPOINTS, &mut all.endpoints, endpoints, warnings);
            extend(kinds::NODE, &mut all.nodes, nodes, warnings);
            extend(kinds::SERVICE_CIDR, &mut all.cidrs, cidrs, warnings);
        }
        all
    }

    /// The objects for the agent: Services, EndpointSlices (without those of headless Services), ServiceCIDRs, the agent's
    /// Node, and slices derived from Pods and Endpoints.
    pub fn select(&self, wanted: &Wanted, warnings: &mut Vec<String>) -> Selection {
        let Self { services, slices, pods: _, endpoints: _, nodes, cidrs } = self;
        let slices = slices.values().filter(|slice| !slice.is_headless).map(|slice| &slice.object);
        let own = nodes.iter().filter(|(name, _)| *name.name() == *wanted.node).map(|(_, node)| node);
        let given = services.values().map(|service| &service.object).chain(slices).chain(own).chain(cidrs.values());
        let mut made = pods::slices(self, wanted, warnings);
        made.extend(mirror::slices(self, wanted, &made, warnings));
        let all = given.cloned().chain(made.into_iter().map(Arc::new));
        warnings.extend(self.without_address());
        warnings.extend(self.without_node(wanted));
        all.map(|object| ((object.kind(), object.name().clone()), object)).collect()
    }

    /// Whether there are Nodes, but not the Node of the agent.
    pub fn lacks_own_node(&self, wanted: &Wanted) -> bool {
        !self.nodes.is_empty() && !self.nodes.keys().any(|name| *name.name() == *wanted.node)
    }

    /// A warning about served Services without a required ClusterIP; `None` if there are none.
    fn without_address(&self) -> Option<String> {
        let lacking: Vec<&ObjectName> = self.named(Service::lacks_address);
        (!lacking.is_empty()).then(|| {
            format!(
                "{} without a clusterIP, and not served: {}; an API server gives Services their addresses: in files, write \
                 spec.clusterIP",
                counted(lacking.len(), "Service is", "Services are"),
                some_of(&lacking)
            )
        })
    }

    /// A warning about Services with a policy `Local`, if there are Nodes, but not the agent's Node.
    fn without_node(&self, wanted: &Wanted) -> Option<String> {
        let local = self.named(Service::is_local);
        let is_needed = self.lacks_own_node(wanted) && !local.is_empty();
        is_needed.then(|| {
            let nodes: Vec<&str> = self.nodes.keys().map(ObjectName::name).collect();
            format!(
                "there is no Node {:?}, but {}: no endpoint counts as local, and {} on the node: {}; give this node's name with \
                 --node-name",
                wanted.node,
                some_of(&nodes),
                counted(local.len(), "Service keeps traffic", "Services keep traffic"),
                some_of(&local)
            )
        })
    }

    /// The names of the Services that meet the condition.
    fn named(&self, is_meant: fn(&Service) -> bool) -> Vec<&ObjectName> {
        self.services.iter().filter(|(_, service)| is_meant(service)).map(|(name, _)| name).collect()
    }
}

/// Whether an object of `before` is missing in `all`.
fn lacks<T>(all: &All<T>, before: &All<T>) -> bool {
    before.keys().any(|name| !all.contains_key(name))
}

fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

fn some_of(names: &[impl ToString]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(ToString::to_string).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Copies objects of `before` to `all`: unchanged objects, so that their `Arc` stays, and the objects that
/// [`Objects::keep_former`] keeps.
fn keep<T: PartialEq>(
    kind: &'static str,
    before: &All<T>,
    all: &mut All<T>,
    faults: &mut Faults,
    rejection: impl Fn(&T, &T) -> Option<String>,
) {
    for (name, old) in before {
        let is_kept = match all.get(name) {
            None => faults.keeps(kind, name),
            Some(new) if new == old => true,
            Some(new) => match rejection(old, new) {
                Some(reason) => {
                    faults.warn(format_args!("{kind} {name} stays as it was before: {reason}"));
                    true
                }
                None => false,
            },
        };
        if is_kept {
            all.insert(name.clone(), old.clone());
        }
    }
}

fn extend<T>(kind: &str, all: &mut All<T>, more: &All<T>, warnings: &mut Vec<String>) {
    if all.is_empty() {
        // Quicker than one insertion after the other.
        return all.clone_from(more);
    }
    for (name, object) in more {
        if all.insert(name.clone(), object.clone()).is_some() {
            warnings.push(format!("{kind} {name} is in two files; the one of the last file is used"));
        }
    }
}
