//! Names of Kubernetes objects and of Service ports.

use std::{cmp::Ordering, fmt};

use arcstr::ArcStr;
use serde::{Serialize, Serializer};

use super::Protocol;

/// The name of an object as `namespace/name`; for kinds without namespaces usually `default/name`. Clones share one allocation.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectName(ArcStr);

impl ObjectName {
    /// Joins a namespace, which must not contain a slash, and a name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self([namespace, "/", name].concat().into())
    }

    /// The part before the first slash.
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// The part after the first slash.
    pub fn name(&self) -> &str {
        self.parts().1
    }

    /// The same name in an allocation of its own.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(ArcStr::from(self.0.as_str()))
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or_default()
    }
}

/// Ordered by namespace, then by name: a slash is less than each character of a namespace.
impl Ord for ObjectName {
    fn cmp(&self, other: &Self) -> Ordering {
        let (own, others) = (self.0.as_bytes(), other.0.as_bytes());
        // Names are compared very often, and most begin alike.
        let words = own.as_chunks::<8>().0.iter().zip(others.as_chunks().0);
        let equal = 8 * words.take_while(|(own, other)| own == other).count();
        match own.iter().zip(others).skip(equal).find(|(own, other)| own != other) {
            None => own.len().cmp(&others.len()),
            Some((b'/', _)) => Ordering::Less,
            Some((_, b'/')) => Ordering::Greater,
            Some((own, other)) => own.cmp(other),
        }
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

/// Serializes as `namespace/name`.
impl Serialize for ObjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The name of one port of a Service; kube-proxy calls it the service port name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// The Service that the port belongs to.
    pub service: ObjectName,
    /// `spec.ports[].name`; empty if not given.
    pub port: ArcStr,
    /// `spec.ports[].protocol`.
    pub protocol: Protocol,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_by_namespace_first() {
        let parts = [
            ("", "a"),
            ("namespace", "a"),
            ("namespace", "b"),
            ("namespace-a", "a"),
            ("a", ""),
            ("a", "b"),
            ("a", "b-c"),
            ("a-b", "a"),
            ("a.b", "a"),
            ("a0", "a"),
            ("b", "a"),
        ];
        for (namespace, name) in parts {
            for (other_namespace, other_name) in parts {
                let order = ObjectName::new(namespace, name).cmp(&ObjectName::new(other_namespace, other_name));
                assert_eq!(order, (namespace, name).cmp(&(other_namespace, other_name)), "{namespace}/{name}");
            }
        }
    }
}
