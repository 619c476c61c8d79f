//! `portmap status`: prints the checks, notes and maps of [`Health`]. Their texts are in `inspect/status.rs`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, Color};
use portmap::inspect::status::{self, Health};

use super::{
    NO, PinsArguments,
    output::{self, Format},
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pins: PinsArguments,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let pins = self.pins.open()?;
        pins.expect()?;
        let health = status::check(&pins)?;
        if !output::print_data(&health, self.output)? {
            print_table(&health)?;
        }
        Ok(if health.healthy { ExitCode::SUCCESS } else { NO.into() })
    }
}

fn print_table(health: &Health) -> Result<()> {
    let mut table = output::new_table(&[]);
    for check in &health.checks {
        let (result, color) = if check.fine { ("ok", Color::Green) } else { ("NOT OK", Color::Red) };
        table.add_row([Cell::new(check.name), Cell::new(result).fg(color), Cell::new(&check.text)]);
    }
    for note in &health.notes {
        table.add_row([Cell::new("note"), Cell::new(""), Cell::new(note)]);
    }
    output::print_table(&table)?;
    let mut maps = output::new_table(&["MAP", "USED", "CAPACITY", "FULL"]);
    for map in &health.maps {
        let percent = f64::from(map.used) * 100.0 / f64::from(map.capacity.max(1));
        maps.add_row([map.name.to_owned(), map.used.to_string(), map.capacity.to_string(), format!("{percent:.1} %")]);
    }
    output::print("\n")?;
    output::print_table(&maps)
}
