//! Objects that are known to be missing: conclusions about absence are left out.

use std::collections::BTreeSet;

use super::head::Head;

/// Objects on which conclusions depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Pods and pod templates.
    Pods,
    /// Services.
    Services,
    /// NetworkPolicies.
    Policies,
    /// EndpointSlices and Endpoints.
    Slices,
}

/// Groups of which objects are missing: their documents are broken, or they could not be listed.
#[derive(Clone, Debug, Default)]
pub struct Gaps(BTreeSet<Group>);

/// Kinds without pods, and of no other use for the rules.
const PLAIN: [&str; 13] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "CustomResourceDefinition",
    "Ingress",
    "LimitRange",
    "Namespace",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "Role",
    "RoleBinding",
    "Secret",
    "ServiceAccount",
];

impl Gaps {
    /// Adds a missing object of this kind; `None` if its kind is unknown.
    pub fn add(&mut self, kind: Option<&str>) {
        match kind {
            None => self.0.extend([Group::Pods, Group::Services, Group::Policies, Group::Slices]),
            Some("Service") => self.0.extend([Group::Services]),
            Some("NetworkPolicy") => self.0.extend([Group::Policies]),
            Some("EndpointSlice" | "Endpoints") => self.0.extend([Group::Slices]),
            Some(kind) if PLAIN.contains(&kind) || kind.ends_with("Route") => {}
            Some(_) => self.0.extend([Group::Pods]),
        }
    }

    /// Adds the missing objects of another set.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether objects of a group are missing.
    pub fn has(&self, group: Group) -> bool {
        self.0.contains(&group)
    }
}

/// Objects for which a controller may make pods that are not in the set.
#[derive(Debug, Default)]
pub struct PodMakers {
    namespaces: BTreeSet<String>,
    /// Whether pods may be missing in all namespaces.
    everywhere: bool,
    /// Whether there are network policies of another kind.
    pub has_other_policies: bool,
}

/// Groups of custom resources that make no pods.
const GROUPS: [&str; 8] = [
    "cert-manager.io",
    "external-secrets.io",
    "kyverno.io",
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "traefik.io",
    "cilium.io",
];

/// Kinds of custom resources that make no pods, in groups with other kinds.
const KINDS: [&str; 6] = ["PodMonitor", "PrometheusRule", "Probe", "ScrapeConfig", "ServiceMonitor", "AlertmanagerConfig"];

impl PodMakers {
    /// Adds an object of a kind that no rule knows.
    pub fn add(&mut self, group: &str, head: &Head) {
        self.has_other_policies |= head.kind.ends_with("NetworkPolicy");
        // A kustomization that is not built may have further files.
        self.everywhere |= group == "kustomize.config.k8s.io";
        // Groups of Kubernetes itself have no dot, or end in `.k8s.io`.
        let is_own = !group.contains('.') || group.ends_with(".k8s.io");
        if !is_own && !GROUPS.contains(&group) && !KINDS.contains(&head.kind.as_str()) {
            self.namespaces.insert(head.namespace.clone());
        }
    }

    /// Adds the objects of another set.
    pub fn append(&mut self, other: Self) {
        let Self { namespaces, everywhere, has_other_policies } = other;
        self.namespaces.extend(namespaces);
        self.everywhere |= everywhere;
        self.has_other_policies |= has_other_policies;
    }

    /// Whether a controller may make pods in this namespace.
    pub fn may_make_pods_in(&self, namespace: &str) -> bool {
        self.everywhere || self.namespaces.contains(namespace)
    }
}
