//! The kinds that are read from files, and slips of the pen that hide an object of one.

use strsim::osa_distance;

/// `v1`
pub const SERVICE: &str = "Service";
/// `v1`
pub const POD: &str = "Pod";
/// `v1`
pub const NODE: &str = "Node";
/// `v1`
pub const ENDPOINTS: &str = "Endpoints";
/// `discovery.k8s.io/v1`
pub const SLICE: &str = "EndpointSlice";
/// `networking.k8s.io/v1`
pub const SERVICE_CIDR: &str = "ServiceCIDR";

/// Each kind with the version to write.
const KINDS: [(&str, &str); 6] = [
    (SERVICE, "v1"),
    (POD, "v1"),
    (NODE, "v1"),
    (ENDPOINTS, "v1"),
    (SLICE, "discovery.k8s.io/v1"),
    (SERVICE_CIDR, "networking.k8s.io/v1"),
];

/// Names of the core API that are no slip.
const OTHERS: [&str; 2] = ["ServiceAccount", "PodTemplate"];

/// An object that is probably meant to be of a kind that is read.
#[derive(Debug, PartialEq, Eq)]
pub struct Slip {
    /// Which kind; none if any may be meant.
    pub meant: Option<&'static str>,
    /// What is wrong.
    pub reason: String,
}

/// What an object of an unknown kind is meant to be, if that seems to be a mistake. Objects of other API groups never are.
pub fn slip(version: &str, kind: &str, has_metadata: bool) -> Option<Slip> {
    if kind.is_empty() {
        return has_metadata.then(|| Slip { meant: None, reason: "it has no kind".to_owned() });
    }
    let (meant, right) = KINDS.into_iter().find(|(known, _)| is_like(kind, known))?;
    if !is_group(version, right) {
        return None;
    }
    let version = if version.is_empty() { "no apiVersion".to_owned() } else { format!("apiVersion {version:?}") };
    Some(Slip { meant: Some(meant), reason: format!("kind {kind:?} of {version} is not known; is it a {right} {meant}?") })
}

fn is_like(kind: &str, known: &str) -> bool {
    let most = if known.len() > 6 { 2 } else { 1 };
    !OTHERS.contains(&kind) && osa_distance(&kind.to_lowercase(), &known.to_lowercase()) <= most
}

/// Whether a version may be a misspelt one of the right group: another group has kinds of its own.
fn is_group(version: &str, right: &str) -> bool {
    let group = |version: &str| version.split_once('/').map(|(group, _)| group.to_lowercase());
    match (group(version), group(right)) {
        (None, _) => true,
        (Some(found), Some(right)) => osa_distance(&found, &right) <= 2 || right.starts_with(&found),
        (Some(found), None) => found == "core",
    }
}
