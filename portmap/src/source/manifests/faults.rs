//! What is wrong with the documents of a file, and which objects it may have cost.

use std::{collections::BTreeSet, fmt::Display};

use crate::model::ObjectName;

/// A document that is no object.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The kind that is meant; none if any may be.
    pub kind: Option<&'static str>,
    /// The object that is meant; none if its name cannot be read.
    pub name: Option<ObjectName>,
    /// The document, in words.
    pub subject: String,
    /// What is wrong with it.
    pub reason: String,
}

/// All of a file.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    left_out: Vec<Fault>,
    /// Objects that stay as they were, because a fault may be about them.
    kept: BTreeSet<usize>,
    warnings: Vec<String>,
}

impl Faults {
    /// A document that is left out.
    pub fn add(&mut self, fault: Fault) {
        self.left_out.push(fault);
    }

    /// Something else that is wrong.
    pub fn warn(&mut self, warning: impl Display) {
        self.warnings.push(warning.to_string());
    }

    /// Whether a document that is left out may be this object; then it stays as it was, which is said.
    pub fn keeps(&mut self, kind: &'static str, name: &ObjectName) -> bool {
        let may_be = |fault: &Fault| fault.kind.is_none_or(|it| it == kind) && fault.name.as_ref().is_none_or(|it| it == name);
        let found = self.left_out.iter().position(may_be);
        self.kept.extend(found);
        found.is_some()
    }

    /// Each as a sentence.
    pub fn into_warnings(self, file: &str) -> Vec<String> {
        let Self { left_out, kept, warnings } = self;
        let say = |(index, Fault { kind: _, name: _, subject, reason }): (usize, Fault)| {
            let outcome = if kept.contains(&index) { "is left out, and what it was before stays" } else { "is left out" };
            format!("{file}: {subject} {outcome}: {reason}")
        };
        let left_out = left_out.into_iter().enumerate().map(say);
        left_out.chain(warnings.into_iter().map(|warning| format!("{file}: {warning}"))).collect()
    }
}
