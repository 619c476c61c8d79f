//! `portmap lint`: finds mistakes in the ports of Services, pods, policies and routes. Pure: objects in, findings out.
//!
//! [`set::Set`] reads objects from texts or lists. [`documents`] parses a text to [`tree`]s with lines, and [`objects`] reduces a
//! tree to ports, selectors and references. [`check`] applies the rules of [`catalog`]; each module of `rules` has the rules of
//! one topic. The command line reads the files and prints the findings.

pub mod catalog;
mod documents;
pub mod finding;
mod gaps;
pub mod head;
pub mod objects;
mod rules;
mod selection;
pub mod set;
mod tree;

use catalog::Rule;
use finding::Finding;
use set::Set;

/// The settings of the rules.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The first and the last number of node ports.
    pub node_ports: (u16, u16),
    /// Rules whose findings are left out.
    pub ignored: Vec<&'static Rule>,
}

/// All findings about the objects, in the order of files and lines.
pub fn check(set: &Set, settings: &Settings) -> Vec<Finding> {
    let mut findings = rules::apply(set, settings);
    findings.retain(|finding| !settings.ignored.contains(&finding.rule));
    findings.sort_by(|a, b| key(a).cmp(&key(b)));
    findings.dedup();
    findings
}

/// The order of findings.
fn key(finding: &Finding) -> impl Ord {
    let Finding { rule, level: _, place, kind, namespace, name, what, mend: _ } = finding;
    (place, namespace, kind, name, rule.code, what)
}

#[cfg(test)]
mod tests;
