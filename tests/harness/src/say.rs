//! Prints lines of a test directly to standard output. The test runner hides `println!` of tests that pass.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Prints counts and measurements of a test, after the word `figures:`.
pub fn figures(text: impl Display) {
    print_line(&format!("figures: {text}"));
}

/// Reports that this machine cannot run a part of the tests, with the reason. `cargo xtask test` counts these lines.
pub fn skipped(part: &str, reason: &str) {
    print_line(&format!("skipped: {part} ({reason})"));
}

fn print_line(line: &str) {
    // If standard output is closed, there is no other output for an error.
    writeln!(io::stdout(), "{line}").ok();
}
