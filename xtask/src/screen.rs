//! The lines that say how far a command has come.

use std::env;
use std::io::{self, IsTerminal as _, Write};

/// How a line begins.
#[derive(Clone, Copy)]
pub enum Mark {
    /// It is there, or it worked.
    Done,
    /// It is being worked on.
    Doing,
    /// It is not there, or it failed.
    Missing,
}

/// Where the lines go. They are coloured on a terminal only, and not with `NO_COLOR`.
#[derive(Clone, Copy)]
pub enum Screen {
    /// The command's own result.
    Stdout,
    /// What happens on the way to another result.
    Stderr,
}

impl Screen {
    /// A line that begins with a mark; `note` follows it less prominently.
    pub fn marked(self, mark: Mark, text: &str, note: &str) {
        let (glyph, colour) = match mark {
            Mark::Done => ("✓", "32"),
            Mark::Doing => ("→", "36"),
            Mark::Missing => ("✗", "31"),
        };
        self.line(&format!("{} {text} {}", self.paint(colour, glyph), self.paint("2", &format!("· {note}"))));
    }

    /// A plain line.
    pub fn line(self, text: &str) {
        // A reader that went away is no reason to stop half-way.
        match self {
            Self::Stdout => writeln!(io::stdout(), "{text}").ok(),
            Self::Stderr => writeln!(io::stderr(), "{text}").ok(),
        };
    }

    /// A line that stands out.
    pub fn title(self, text: &str) {
        self.line(&self.paint("1", text));
    }

    /// Whether colours are wanted here.
    pub fn coloured(self) -> bool {
        let terminal = match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
        };
        terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    fn paint(self, colour: &str, text: &str) -> String {
        if self.coloured() { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
