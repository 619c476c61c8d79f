//! `portmap resolve`: the table that objects in files should lead to.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use portmap::{
    resolve::{self, Node},
    source::{
        Object, Wanted,
        manifests::{self, Manifests},
    },
    store::Store,
    table::Table,
    view,
};

use super::{
    NO, ObjectArguments,
    output::{self, Format},
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// A file, a directory of files, or - for standard input; repeatable
    #[arg(long, value_name = "PATH", required = true)]
    manifests: Vec<PathBuf>,
    #[command(flatten)]
    objects: ObjectArguments,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Exit with 1 if anything had to be left out
    #[arg(long)]
    strict: bool,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let wanted = self.objects.wanted()?;
        let reading = Manifests::new(self.manifests, wanted.clone()).read()?;
        let mut warnings = reading.warnings;
        let is_usable = reading.objects.iter().any(|object| matches!(object, Object::Service(_)));
        if !is_usable {
            warnings.push("no Service was given: nothing to resolve".to_owned());
        }
        let table = resolve_all(reading.objects, &wanted, &mut warnings);
        for warning in &warnings {
            output::warning(warning);
        }
        output::print_rows(&view::of_table(&table), self.output)?;
        let is_fine = is_usable && (warnings.is_empty() || !self.strict);
        Ok(if is_fine { ExitCode::SUCCESS } else { NO.into() })
    }
}

fn resolve_all(objects: Vec<Object>, wanted: &Wanted, warnings: &mut Vec<String>) -> Table {
    let mut store = Store::default();
    for event in manifests::listed(objects) {
        store.apply(event);
    }
    let node = Node::new(&wanted.node, store.node()).allowing(wanted.external_ips.clone());
    let mut table = Table::default();
    for name in store.take_dirty().services {
        if let Some(service) = store.service(&name) {
            let resolved = resolve::resolve(service, &store.slices_of(&name), &node);
            warnings.extend(resolved.skipped.iter().map(ToString::to_string));
            table.replace(&resolved.precedence, resolved.entries);
        }
    }
    for (place, _) in table.iter() {
        let losers = table.losers(place);
        warnings.extend(
            losers.map(|(loser, winner)| format!("Service {loser}: {place} belongs to Service {winner}, and is left to it")),
        );
    }
    table
}
