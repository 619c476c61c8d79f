//! What a test says to the person who runs it, past the test runner: that shows nothing of what a test prints, if it passes.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Says what was counted and measured.
pub fn figures(text: impl Display) {
    aloud(&format!("figures: {text}"));
}

/// Says that something is not tested on this machine, and why. `cargo xtask test` counts it.
pub fn skipped(what: &str, why: &str) {
    aloud(&format!("skipped: {what} ({why})"));
}

fn aloud(line: &str) {
    // Nobody is there to be told of an output that is gone.
    writeln!(io::stdout(), "{line}").ok();
}
