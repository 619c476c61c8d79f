//! The output of the demo: numbered steps, labelled lines and bars. Colours on a terminal, unless `NO_COLOR` has a value.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};

/// Width in characters of the label at the start of a line below a step's title.
const LABEL: usize = 9;

/// Indentation of the lines below a step's title.
const INDENT: &str = "   ";

/// Length of the longest bar in characters.
const BAR: u32 = 30;

/// Writes to standard output. An error usually means that the reader has closed the pipe, as `head` does.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    is_coloured: bool,
}

#[derive(Clone, Copy)]
enum Paint {
    Bold,
    Dim,
    Red,
    Green,
    Cyan,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Cyan => "36",
        }
    }
}

/// Prints a line, and flushes the output.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Prints the output of a command, indented.
pub fn output(text: &str) -> io::Result<()> {
    text.trim_end().lines().try_for_each(|line| print(format!("{INDENT}  {line}").trim_end()))
}

impl Screen {
    /// Uses colours if standard output is a terminal, and `NO_COLOR` is absent or empty.
    #[must_use]
    pub fn new() -> Self {
        let is_refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { is_coloured: io::stdout().is_terminal() && !is_refused }
    }

    /// Prints a line in bold.
    pub fn headline(self, text: &str) -> io::Result<()> {
        print(&self.paint(Paint::Bold, text))
    }

    /// Prints the number and title of a step.
    pub fn step(self, number: usize, title: &str) -> io::Result<()> {
        let number = self.paint(Paint::Cyan, &format!("{number:<3}"));
        print(&format!("\n{number}{}", self.paint(Paint::Bold, title)))
    }

    /// Prints an indented line that begins with a label; an empty label leaves the space blank.
    pub fn line(self, label: &str, text: &str) -> io::Result<()> {
        print(&format!("{INDENT}{}{text}", self.paint(Paint::Dim, &format!("{label:<LABEL$}"))))
    }

    /// Prints an edit of a file: the old text and the new text.
    pub fn replaced(self, from: &str, to: &str) -> io::Result<()> {
        self.line("", &self.paint(Paint::Red, &format!("- {from}")))?;
        self.line("", &self.paint(Paint::Green, &format!("+ {to}")))
    }

    /// Prints a count as a bar, whose length is relative to the largest count, and as a percentage of the total.
    pub fn bar(self, label: &str, name: &str, count: u32, largest: u32, total: u32) -> io::Result<()> {
        let length = (count * BAR).checked_div(largest).unwrap_or_default();
        let bar: String = (0..length).map(|_| '█').collect();
        let space: String = (length..BAR).map(|_| ' ').collect();
        let share = f64::from(count) * 100.0 / f64::from(total.max(1));
        self.line(label, &format!("{name}  {}{space}  {count:>4}  {share:>5.1} %", self.paint(Paint::Cyan, &bar)))
    }

    /// Prints a shell command in bold, after `$`.
    pub fn command(self, command: &str) -> io::Result<()> {
        print(&format!("{INDENT}{}", self.paint(Paint::Bold, &format!("$ {command}"))))
    }

    /// Prints the result of a successful step, after a green check mark.
    pub fn passed(self, conclusion: &str) -> io::Result<()> {
        print(&format!("{INDENT}{} {conclusion}", self.paint(Paint::Green, "✓")))
    }

    /// Prints the error of a failed step, after a red cross. Only the first line is on the line of the cross.
    pub fn failed(self, reason: &str) -> io::Result<()> {
        let (first, rest) = reason.split_once('\n').unwrap_or((reason, ""));
        print(&format!("{INDENT}{} {first}", self.paint(Paint::Red, "✗")))?;
        output(rest)
    }

    fn paint(self, paint: Paint, text: &str) -> String {
        if self.is_coloured && !text.is_empty() { format!("\x1b[{}m{text}\x1b[0m", paint.code()) } else { text.to_owned() }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}
