//! Invalid documents of a manifest file, and the former objects that are kept because of them.

use std::{collections::BTreeSet, fmt::Display};

use crate::model::ObjectName;

/// A document that could not be converted to an object.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The kind of the object; `None` if it is unknown.
    pub kind: Option<&'static str>,
    /// The name of the object; `None` if it is unknown or invalid.
    pub name: Option<ObjectName>,
    /// The kind and name of the document, as the warning shows them.
    pub subject: String,
    /// The reason why the document is invalid, as the warning shows it.
    pub reason: String,
}

/// All faults of a manifest file, and its other warnings.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    left_out: Vec<Fault>,
    /// Indices into `left_out`: the faults because of which a former object is kept.
    kept: BTreeSet<usize>,
    warnings: Vec<String>,
}

impl Faults {
    /// Adds a document that is left out.
    pub fn add(&mut self, fault: Fault) {
        self.left_out.push(fault);
    }

    /// Adds a warning that is not about a document that is left out.
    pub fn warn(&mut self, warning: impl Display) {
        self.warnings.push(warning.to_string());
    }

    /// Whether a document that is left out may be this object, so that its former state has to be kept. If so, the warning of
    /// the first such document mentions that.
    pub fn keeps(&mut self, kind: &'static str, name: &ObjectName) -> bool {
        let may_be = |fault: &Fault| fault.kind.is_none_or(|it| it == kind) && fault.name.as_ref().is_none_or(|it| it == name);
        let found = self.left_out.iter().position(may_be);
        self.kept.extend(found);
        found.is_some()
    }

    /// One sentence for each fault and each other warning, with the name of the file.
    pub fn into_warnings(self, file: &str) -> Vec<String> {
        let Self { left_out, kept, warnings } = self;
        let sentence = |(index, Fault { kind: _, name: _, subject, reason }): (usize, Fault)| {
            let outcome = if kept.contains(&index) { "is left out, and its former state stays" } else { "is left out" };
            format!("{file}: {subject} {outcome}: {reason}")
        };
        let left_out = left_out.into_iter().enumerate().map(sentence);
        left_out.chain(warnings.into_iter().map(|warning| format!("{file}: {warning}"))).collect()
    }
}
