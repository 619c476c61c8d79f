//! The kinds that are read from files, and the detection of misspelt kinds and versions.

use strsim::osa_distance;

/// The kind `v1/Service`.
pub const SERVICE: &str = "Service";
/// The kind `v1/Pod`.
pub const POD: &str = "Pod";
/// The kind `v1/Node`.
pub const NODE: &str = "Node";
/// The kind `v1/Endpoints`.
pub const ENDPOINTS: &str = "Endpoints";
/// The kind `discovery.k8s.io/v1/EndpointSlice`.
pub const SLICE: &str = "EndpointSlice";
/// The kind `networking.k8s.io/v1/ServiceCIDR`.
pub const SERVICE_CIDR: &str = "ServiceCIDR";

/// The kinds that are read, with their `apiVersion` for warnings.
const KINDS: [(&str, &str); 6] = [
    (SERVICE, "v1"),
    (POD, "v1"),
    (NODE, "v1"),
    (ENDPOINTS, "v1"),
    (SLICE, "discovery.k8s.io/v1"),
    (SERVICE_CIDR, "networking.k8s.io/v1"),
];

/// Kinds of the core API that begin with a kind of [`KINDS`], but are no misspelling.
const OTHERS: [&str; 2] = ["ServiceAccount", "PodTemplate"];

/// An object with a kind or version that is probably misspelt.
#[derive(Debug, PartialEq, Eq)]
pub struct Misspelling {
    /// The kind that is probably meant; `None` if the object has no kind.
    pub kind: Option<&'static str>,
    /// The explanation for the warning.
    pub reason: String,
}

/// Whether an object of this kind is neither read nor a list, and does not look misspelt.
pub fn is_ignored(version: &str, kind: &str) -> bool {
    !kind.is_empty() && !kind.ends_with("List") && misspelling(version, kind, true).is_none()
}

/// Checks an object of an unknown kind or version. Returns `None` if its kind resembles no kind of [`KINDS`], or its API
/// group is clearly another one. `has_metadata`: without it, an object without a kind is ignored too.
pub fn misspelling(version: &str, kind: &str, has_metadata: bool) -> Option<Misspelling> {
    if kind.is_empty() {
        return has_metadata.then(|| Misspelling { kind: None, reason: "it has no kind".to_owned() });
    }
    let (known, right) = KINDS.into_iter().find(|(known, _)| is_like(kind, known))?;
    if !is_group(version, right) {
        return None;
    }
    let version = if version.is_empty() { "no apiVersion".to_owned() } else { format!("apiVersion {version:?}") };
    Some(Misspelling {
        kind: Some(known),
        reason: format!("kind {kind:?} of {version} is not known; is it a {right} {known}?"),
    })
}

/// Whether a kind differs from a known kind by at most two edits (one for short names), apart from upper and lower case. False
/// for [`OTHERS`].
fn is_like(kind: &str, known: &str) -> bool {
    let max_distance = if known.len() > 6 { 2 } else { 1 };
    let is_as_long = kind.len().abs_diff(known.len()) <= max_distance;
    is_as_long && !OTHERS.contains(&kind) && osa_distance(&kind.to_lowercase(), &known.to_lowercase()) <= max_distance
}

/// Whether a version may be a misspelt version of the API group of `right`. Other groups may have a kind with the same name.
fn is_group(version: &str, right: &str) -> bool {
    let group = |version: &str| version.split_once('/').map(|(group, _)| group.to_lowercase());
    match (group(version), group(right)) {
        (None, _) => true,
        (Some(found), Some(right)) => osa_distance(&found, &right) <= 2 || right.starts_with(&found),
        (Some(found), None) => found == "core",
    }
}
