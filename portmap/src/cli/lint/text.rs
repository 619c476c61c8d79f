//! Findings as text, in the style of a compiler.

use std::{fmt::Write as _, io};

use anyhow::Result;
use portmap::lint::{catalog::Level, finding::Finding};

use crate::cli::output;

/// Prints each finding with its reason and remedy, and a last line with the counts. `objects`: the number of all objects.
pub fn print(findings: &[Finding], objects: usize) -> Result<()> {
    let is_colored = output::is_colored(&io::stdout());
    let mut text = String::new();
    for finding in findings {
        write_finding(&mut text, finding, is_colored)?;
    }
    writeln!(text, "{} in {}", counts(findings), counted(objects, "object"))?;
    output::print(&text)
}

fn write_finding(text: &mut String, finding: &Finding, is_colored: bool) -> Result<()> {
    if let Some((file, line)) = &finding.place {
        write!(text, "{file}:{line}: ")?;
    }
    let (level, code) = (finding.level, finding.rule.code);
    if is_colored {
        write!(text, "\x1b[1;{}m{level}[{code}]\x1b[0m", color(level))?;
    } else {
        write!(text, "{level}[{code}]")?;
    }
    let object = finding.object();
    let separator = if object.is_empty() { "" } else { " " };
    writeln!(text, "{separator}{object}: {}", finding.what)?;
    writeln!(text, "    why: {}\n    mend: {}", finding.rule.why, finding.mend)?;
    Ok(())
}

fn color(level: Level) -> &'static str {
    match level {
        Level::Error => "31",
        Level::Warning => "33",
        Level::Note => "36",
    }
}

/// The numbers of findings by level: `1 error, 2 notes`; or `no findings`.
fn counts(findings: &[Finding]) -> String {
    let counts: Vec<String> = [Level::Error, Level::Warning, Level::Note]
        .into_iter()
        .map(|level| (findings.iter().filter(|finding| finding.level == level).count(), level))
        .filter(|(count, _)| *count > 0)
        .map(|(count, level)| counted(count, level.name()))
        .collect();
    if counts.is_empty() { "no findings".to_owned() } else { counts.join(", ") }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
