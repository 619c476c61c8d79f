//! `portmap flows`: the flows of clients outside the node.

use std::{net::IpAddr, process::ExitCode};

use anyhow::Result;
use clap::Args;
use comfy_table::Cell;
use portmap::{
    inspect::flows::{self, Filter, Row, ServiceName},
    maps::{
        Maps as _,
        bpf::BpfMaps,
        flows::{FlowMaps, now},
    },
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
    /// Show only flows to this Service: NAME (in every namespace), NAME.NAMESPACE or NAMESPACE/NAME
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    /// Show only flows of the client with this address
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let pins = self.pins.open()?;
        pins.expect()?;
        let tables = BpfMaps::open(&pins)?.read()?;
        let flows = FlowMaps::open(&pins)?.list(now())?;
        let rows = flows::rows(flows, &tables, &Filter { service: self.service, client: self.client });
        if !output::print_data(&rows, self.output)? {
            print_table(&rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print_table(rows: &[Row]) -> Result<()> {
    if rows.is_empty() {
        return output::print("no flows\n");
    }
    let mut table = output::new_table(&["CLIENT", "FRONTEND", "SERVICE", "BACKEND", "HIDDEN BEHIND", "STATE", "AGE", "IDLE"]);
    for row in rows {
        table.add_row([
            Cell::new(&row.client),
            Cell::new(&row.frontend),
            Cell::new(service(row)),
            Cell::new(row.backend.as_deref().unwrap_or("refused")),
            Cell::new(row.hidden_behind.as_deref().unwrap_or("-")),
            Cell::new(row.state),
            Cell::new(output::duration(row.age_seconds)),
            Cell::new(output::duration(row.idle_seconds)),
        ]);
    }
    output::print_table(&table)
}

/// The Service with the name of its port.
fn service(row: &Row) -> String {
    match (row.service.as_deref(), row.port.as_str()) {
        (None, _) => "-".to_owned(),
        (Some(service), "") => service.to_owned(),
        (Some(service), port) => format!("{service}:{port}"),
    }
}
