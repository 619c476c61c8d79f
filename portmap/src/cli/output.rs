//! How things are printed: tables for people, JSON and YAML for programs, messages on standard error.

use std::io::{self, IsTerminal, Write as _};

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use portmap::inspect::table::{External, Row};
use serde::Serialize;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::repeats::Limited;

/// A form of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people
    #[default]
    Table,
    /// JSON, for programs
    Json,
    /// YAML
    Yaml,
}

/// Prints rows of the table.
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

/// At most this many backends are shown in a table; JSON has all.
const SHOWN: usize = 4;

fn backends(row: &Row) -> String {
    let inside = shorten(&row.backends);
    match &row.external_backends {
        None => inside,
        Some(External::Backends(outside)) => format!("{inside} (outside: {})", shorten(outside)),
        Some(External::Action(action)) => format!("{inside} (outside: {action})"),
    }
}

fn shorten(backends: &[String]) -> String {
    match backends {
        [] => "-".to_owned(),
        few if few.len() <= SHOWN => few.join(", "),
        many => {
            let (shown, rest) = many.split_at(SHOWN);
            format!("{}, and {} more", shown.join(", "), rest.len())
        }
    }
}

/// Prints data as JSON or YAML; false if a table was asked for.
pub fn print_data<T: Serialize>(data: &T, format: Format) -> Result<bool> {
    match format {
        Format::Table => return Ok(false),
        Format::Json => print(&(serde_json::to_string_pretty(data)? + "\n"))?,
        Format::Yaml => print(&serde_saphyr::to_string(data)?)?,
    }
    Ok(true)
}

/// A table without lines, as kubectl prints them.
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

/// Prints a table, its columns two blanks apart.
pub fn print_table(table: &Table) -> Result<()> {
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    print(&(lines.join("\n") + "\n"))
}

/// Prints text on standard output.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Says that something is wrong, and the rest goes on.
pub fn warning(text: &str) {
    message("warning", "33", text);
}

/// Says why it ends.
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

/// Whether the reader of our output went away, as `head` does: no reason to complain.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Sends the log to standard error. `RUST_LOG` overrides the level.
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

fn is_colored(stream: &impl IsTerminal) -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_refused
}
