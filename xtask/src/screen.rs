//! Prints the progress and result lines of all commands.

use std::env;
use std::io::{self, IsTerminal as _, Write};

/// The state of a tool or requirement, shown as a sign at the beginning of a line.
#[derive(Clone, Copy)]
pub enum Mark {
    /// The tool is installed.
    Done,
    /// The installation is running.
    Doing,
    /// The tool is missing, or its installation failed.
    Missing,
}

/// The output to which lines are printed. See [`Screen::coloured`] for colours.
#[derive(Clone, Copy)]
pub enum Screen {
    /// Standard output, for the command's result.
    Stdout,
    /// Standard error, for progress.
    Stderr,
}

impl Screen {
    /// Prints a line with a mark. `note` follows the text in a less prominent colour.
    pub fn marked(self, mark: Mark, text: &str, note: &str) {
        let (glyph, colour) = match mark {
            Mark::Done => ("✓", "32"),
            Mark::Doing => ("→", "36"),
            Mark::Missing => ("✗", "31"),
        };
        self.line(&format!("{} {text} {}", self.paint(colour, glyph), self.paint("2", &format!("· {note}"))));
    }

    /// Prints a plain line.
    pub fn line(self, text: &str) {
        // Errors are ignored, so that a closed output does not stop the command.
        match self {
            Self::Stdout => writeln!(io::stdout(), "{text}").ok(),
            Self::Stderr => writeln!(io::stderr(), "{text}").ok(),
        };
    }

    /// Prints a line in bold.
    pub fn title(self, text: &str) {
        self.line(&self.paint("1", text));
    }

    /// Whether lines on this output have colours: it is a terminal, and the variable `NO_COLOR` is absent or empty.
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
