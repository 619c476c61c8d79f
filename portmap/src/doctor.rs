//! The checks of `portmap doctor`: the node, other software on it, and the programs that should listen for the Services.
//!
//! [`tables`] reads the service ports from the maps, and [`sockets`] surveys the sockets of the network namespaces that have
//! the backends. [`listening`] and [`node_ports`] compare both; they are pure. [`node`], [`programs`] and [`leftovers`] check
//! the rest of the node. The command line prints the checks.

pub mod leftovers;
pub mod listening;
pub mod node;
pub mod node_ports;
pub mod programs;
pub mod sockets;
pub mod tables;

use serde::Serialize;

/// The result of one check. The names and values of its JSON are a stable contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The name of the check, such as `listening`. A check may have several results.
    pub name: &'static str,
    /// The result.
    pub result: CheckResult,
    /// The observation, and the remedy for a mistake.
    pub text: String,
}

/// The kind of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckResult {
    /// No mistake was found.
    Ok,
    /// There is nothing to correct, or the check was not possible.
    Note,
    /// There is a mistake.
    NotOk,
}

impl Check {
    /// A check without a mistake.
    pub fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, result: CheckResult::Ok, text: text.into() }
    }

    /// An observation that is no mistake, or a check that was not possible.
    pub fn note(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, result: CheckResult::Note, text: text.into() }
    }

    /// A mistake.
    pub fn not_ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, result: CheckResult::NotOk, text: text.into() }
    }
}

impl CheckResult {
    /// The text in a table.
    pub fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "NOTE",
            Self::NotOk => "NOT OK",
        }
    }
}

/// The first elements of a list as a text, and the number of the others: `a, b, c and 4 more`.
fn shorten<T: ToString>(all: &[T]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = all.iter().take(SHOWN).map(ToString::to_string).collect();
    let shown = shown.join(", ");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
