//! Names of Kubernetes objects and of Service ports.

use std::{cmp::Ordering, fmt};

use arcstr::ArcStr;

use super::Protocol;

/// A namespaced object's name, `namespace/name`. All copies share one text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectName(ArcStr);

impl ObjectName {
    /// A name within a namespace, which has no slash in it.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(arcstr::format!("{namespace}/{name}"))
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// The name within it.
    pub fn name(&self) -> &str {
        self.parts().1
    }

    /// The same name with a text of its own.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(ArcStr::from(self.0.as_str()))
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or_default()
    }
}

/// By namespace, then by name.
impl Ord for ObjectName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for ObjectName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One port of a Service: what kube-proxy calls a service port name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// The Service.
    pub service: ObjectName,
    /// The port's name, empty if it has none.
    pub port: ArcStr,
    /// The port's protocol.
    pub protocol: Protocol,
}
