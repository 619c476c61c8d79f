//! The list of all rules, and the explanation of one.

use std::fmt::Write as _;

use anyhow::Result;
use portmap::lint::{
    catalog::{ALL, Rule},
    head::IGNORE,
};

use crate::cli::output;

/// Prints all rules.
pub fn list() -> Result<()> {
    let mut table = output::new_table(&["CODE", "LEVEL", "MISTAKE"]);
    for rule in ALL {
        table.add_row([rule.code, rule.level.name(), rule.title]);
    }
    output::print_table(&table)
}

/// Prints one rule.
pub fn explain(rule: &Rule) -> Result<()> {
    let Rule { code, level, title, why, mend } = rule;
    let mut text = String::new();
    writeln!(text, "{level}[{code}]: {title}\n    why: {why}\n    mend: {mend}")?;
    writeln!(text, "To ignore it, give --ignore {code}, or the object or its pod template the annotation {IGNORE}: {code}")?;
    output::print(&text)
}
