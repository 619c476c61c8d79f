//! `portmap services`: the content of the kernel's tables.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use portmap::{
    inspect::table,
    maps::{Maps as _, bpf::BpfMaps},
};

use super::{
    PinsArguments,
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
        let snapshot = BpfMaps::open(&pins)?.read()?;
        output::print_rows(&table::of_snapshot(&snapshot), self.output)?;
        Ok(ExitCode::SUCCESS)
    }
}
