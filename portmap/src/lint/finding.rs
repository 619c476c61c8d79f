//! A finding: the place, the object, the mistake, its reason, and a remedy.

use std::sync::Arc;

use super::{
    catalog::{Level, Rule},
    head::Head,
    tree::Line,
};

/// A finding about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// The level, which may be lower than the rule's.
    pub level: Level,
    /// The file and the line from 1; `None` for an object of a cluster.
    pub place: Option<(Arc<str>, Line)>,
    /// The kind of the object; empty if it is unknown.
    pub kind: String,
    /// The namespace of the object; empty if it is unknown.
    pub namespace: String,
    /// The name of the object; empty if it is unknown.
    pub name: String,
    /// The mistake, as a phrase without a period.
    pub what: String,
    /// The remedy, as a phrase without a period.
    pub mend: String,
}

impl Finding {
    /// A finding at a line of an object, with the level and the remedy of the rule.
    pub fn new(rule: &'static Rule, head: &Head, line: Line, what: String) -> Self {
        Self {
            rule,
            level: rule.level,
            place: head.file.clone().map(|file| (file, if line == 0 { head.line } else { line })),
            kind: head.kind.clone(),
            namespace: head.namespace.clone(),
            name: head.name.clone(),
            what,
            mend: rule.mend.to_owned(),
        }
    }

    /// Sets the level.
    #[must_use]
    pub fn at_level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    /// Sets the remedy.
    #[must_use]
    pub fn mended_by(self, mend: String) -> Self {
        Self { mend, ..self }
    }

    /// The object as text: `Service default/web`. Empty if nothing is known of it.
    pub fn object(&self) -> String {
        let name = match (self.namespace.as_str(), self.name.as_str()) {
            ("", name) => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        [self.kind.as_str(), &name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }
}
