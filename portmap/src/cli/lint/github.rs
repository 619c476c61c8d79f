//! Findings as workflow commands, which GitHub Actions shows beside the lines of a change.

use std::fmt::Write as _;

use anyhow::Result;
use portmap::lint::{catalog::Level, finding::Finding};

use crate::cli::output;

/// Prints one command per finding.
pub fn print(findings: &[Finding]) -> Result<()> {
    let mut text = String::new();
    for finding in findings {
        let command = match finding.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "notice",
        };
        let (code, object) = (finding.rule.code, finding.object());
        write!(text, "::{command} ")?;
        if let Some((file, line)) = &finding.place {
            write!(text, "file={},line={line},", property(file))?;
        }
        let message = format!("{object}: {}\nwhy: {}\nmend: {}", finding.what, finding.rule.why, finding.mend);
        writeln!(text, "title={}::{}", property(code), data(message.trim_start_matches(": ")))?;
    }
    output::print(&text)
}

/// Escapes the text of a command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a property of a command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
