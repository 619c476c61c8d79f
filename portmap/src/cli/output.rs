//! The output: tables, JSON and YAML on standard output, messages and the log on standard error.

use std::io::{self, IsTerminal, Write as _};

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use portmap::inspect::table::{External, Row};
use serde::Serialize;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::repeats::Limited;

/// The format of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// JSON, for programs
    Json,
    /// YAML, for programs
    Yaml,
}

/// Prints frontends as a table, JSON or YAML on standard output.
pub fn print_rows(rows: &[Row], format: Format) -> Result<()> {
    if print_data(&rows, format)? {
        return Ok(());
    }
    if rows.is_empty() {
        return print("no frontends\n");
    }
    let mut table = new_table(&["FRONTEND", "SERVICE", "PORT", "KIND", "ACTION", "BACKENDS"]);
    for row in rows {
        let color = if row.action == "forward" { Color::Green } else { Color::Red };
        table.add_row([
            Cell::new(&row.frontend),
            Cell::new(&row.service),
            Cell::new(if row.port.is_empty() { "-" } else { &row.port }),
            Cell::new(row.kind),
            Cell::new(row.action).fg(color),
            Cell::new(backends(row)),
        ]);
    }
    print_table(&table)
}

/// The most backends that a table shows per frontend, for clients on the node and outside each; JSON and YAML show all.
const SHOWN: usize = 4;

fn backends(row: &Row) -> String {
    let inside = shorten(&row.backends);
    match &row.external_backends {
        None => inside,
        Some(External::Backends(outside)) => format!("{inside} (outside: {})", shorten(outside)),
        Some(External::Action(action)) => format!("{inside} (outside: {action})"),
    }
}

/// The first backends as one text, and the number of the others.
pub fn shorten(backends: &[String]) -> String {
    match backends {
        [] => "-".to_owned(),
        few if few.len() <= SHOWN => few.join(", "),
        many => {
            let (shown, rest) = many.split_at(SHOWN);
            format!("{}, and {} more", shown.join(", "), rest.len())
        }
    }
}

/// Prints data as JSON or YAML. Returns false, and prints nothing, for [`Format::Table`].
pub fn print_data<T: Serialize>(data: &T, format: Format) -> Result<bool> {
    match format {
        Format::Table => return Ok(false),
        Format::Json => print(&(serde_json::to_string_pretty(data)? + "\n"))?,
        Format::Yaml => print(&serde_saphyr::to_string(data)?)?,
    }
    Ok(true)
}

/// An empty table without borders, in the style of kubectl.
pub fn new_table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !headings.is_empty() {
        table.set_header(headings.iter().map(|heading| Cell::new(heading).set_alignment(CellAlignment::Left)));
    }
    if is_colored(&io::stdout()) {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

/// Prints a table with two spaces between its columns.
pub fn print_table(table: &Table) -> Result<()> {
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    print(&(lines.join("\n") + "\n"))
}

/// A number of seconds as text, in the largest unit of which there are at least two, or in seconds.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Prints text on standard output.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Prints a warning on standard error.
pub fn warning(text: &str) {
    message("warning", "33", text);
}

/// Prints an error on standard error.
pub fn error(error: &anyhow::Error) {
    message("error", "31", &portmap::error_text::of_error(error.as_ref()));
}

fn message(label: &str, color: &str, text: &str) {
    let stderr = io::stderr();
    if is_colored(&stderr) {
        eprintln!("\x1b[1;{color}m{label}\x1b[0m: {text}");
    } else {
        eprintln!("{label}: {text}");
    }
}

/// Whether a write failed because the reader of standard output has closed it, as `head` does. This is no failure.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Sends the log to standard error. `verbosity` (the number of `-v`) sets the level, unless `RUST_LOG` sets it.
pub fn log_to_stderr(verbosity: u8) {
    let level = match verbosity {
        0 => "info,kube=off,tower=off",
        1 => "info,portmap=debug",
        _ => "debug",
    };
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).try_from_env();
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(is_colored(&io::stderr()))
        .event_format(Limited::new(tracing_subscriber::fmt::format().with_target(verbosity > 1)))
        .init();
}

/// Whether output on this stream is colored: it is a terminal, and `NO_COLOR` is not set.
pub fn is_colored(stream: &impl IsTerminal) -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_refused
}
