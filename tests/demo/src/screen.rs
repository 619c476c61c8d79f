//! The output of the demo: numbered steps, labelled lines and bars, with at most [`WIDTH`] columns where spaces allow it.
//! Colours on a terminal, unless `NO_COLOR` has a value.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};

use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// Width of the output in columns. Longer lines are continued on the next line.
pub const WIDTH: usize = 100;

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

/// Prints the output of a command, indented. A long line continues below its last column, as in a table.
pub fn output(text: &str) -> io::Result<()> {
    let first = format!("{INDENT}  ");
    text.trim_end().lines().try_for_each(|line| {
        let rest = format!("{first}{:width$}", "", width = continuation(line));
        print(&fold(line, &first, &rest, WIDTH).join("\n"))
    })
}

/// The column in which a long line continues: that of its last column, or 4 if there is none or it is narrow.
fn continuation(line: &str) -> usize {
    let last = line.rfind("  ").and_then(|space| line.get(..space + 2)).map(|before| before.chars().count());
    last.filter(|column| (1..WIDTH * 3 / 4).contains(column)).unwrap_or(4)
}

/// As [`output`], with `…` in place of lines that are not kept.
pub fn excerpt(text: &str, is_kept: impl Fn(&str) -> bool) -> io::Result<()> {
    let mut lines: Vec<&str> = text.trim_end().lines().map(|line| if is_kept(line) { line } else { "…" }).collect();
    lines.dedup_by(|next, line| *next == "…" && next == line);
    output(&lines.join("\n"))
}

/// A space at which no line is broken, inside of this module.
const JOINT: &str = "\u{a0}";

/// The command with a [`JOINT`] between each long option and its value, so that they stay on one line.
fn with_joined_options(command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    let is_option = |word: &str| word.starts_with("--");
    let space = |pair: &[&str]| if is_option(pair[0]) && !is_option(pair[1]) { JOINT } else { " " };
    let spaces = words.windows(2).map(space).chain([""]);
    words.iter().zip(spaces).flat_map(|(word, space)| [*word, space]).collect()
}

/// The lines of a text of one line, each with at most `width` columns, if it has spaces to break at.
fn fold(text: &str, first: &str, rest: &str, width: usize) -> Vec<String> {
    let options = Options::new(width)
        .initial_indent(first)
        .subsequent_indent(rest)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    textwrap::wrap(text, options).iter().map(|line| line.trim_end().to_owned()).collect()
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
        let first = format!("{INDENT}{}", self.paint(Paint::Dim, &format!("{label:<LABEL$}")));
        let rest = format!("{INDENT}{:LABEL$}", "");
        print(&fold(text, &first, &rest, WIDTH).join("\n"))
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

    /// Prints a shell command in bold, after `$`. Long commands continue after a backslash, as in a shell.
    pub fn command(self, command: &str) -> io::Result<()> {
        const BACKSLASH: &str = " \\";
        let (first, rest) = (format!("{INDENT}$ "), format!("{INDENT}    "));
        let lines = fold(&with_joined_options(command), &first, &rest, WIDTH - BACKSLASH.len());
        let lines: Vec<String> = lines
            .join(&format!("{BACKSLASH}\n"))
            .replace(JOINT, " ")
            .lines()
            .map(|line| self.paint(Paint::Bold, line))
            .collect();
        print(&lines.join("\n"))
    }

    /// Prints a question without a line break at its end, in a less prominent colour.
    pub fn prompt(self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        write!(stdout, "\n{INDENT}{}", self.paint(Paint::Dim, text))?;
        stdout.flush()
    }

    /// Prints the result of a successful step, after a green check mark.
    pub fn passed(self, conclusion: &str) -> io::Result<()> {
        let first = format!("{INDENT}{} ", self.paint(Paint::Green, "✓"));
        print(&fold(conclusion, &first, &format!("{INDENT}  "), WIDTH).join("\n"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_continued_with_an_indent() {
        assert_eq!(fold("one  two three", "- ", "    ", 12), ["- one  two", "    three"]);
        assert_eq!(fold("a-word/without-spaces", "", "", 5), ["a-word/without-spaces"]);
        assert_eq!(fold("   table   row", "", "", 80), ["   table   row"]);
    }

    #[test]
    fn a_row_of_a_table_continues_in_its_last_column() {
        assert_eq!(continuation("programs  ok  connect4, connect6"), 14);
        assert_eq!(continuation("    why: a reason"), 4);
        assert_eq!(continuation("a sentence"), 4);
    }

    #[test]
    fn an_option_stays_with_its_value() {
        let joined = with_joined_options("run --bpffs DIR --keep --node a b");
        assert_eq!(joined.replace(JOINT, "+"), "run --bpffs+DIR --keep --node+a b");
    }

    #[test]
    fn colours_have_no_width() {
        let painted = Screen { is_coloured: true }.paint(Paint::Red, "123");
        assert_eq!(fold(&format!("{painted} 456"), "", "", 7).len(), 1);
    }
}
