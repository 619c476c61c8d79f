//! `portmap resolve`: the table that objects in files should lead to.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use portmap::{
    resolve,
    source::{Event, Kind, Object, manifests::Manifests},
    store::Store,
    table::Table,
    view,
};

use super::{
    NO, NodeArguments,
    output::{self, Format},
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// A file, a directory of files, or - for standard input; repeatable
    #[arg(long, value_name = "PATH", required = true)]
    manifests: Vec<PathBuf>,
    #[command(flatten)]
    node: NodeArguments,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Exit with 1 if anything had to be left out
    #[arg(long)]
    strict: bool,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let reading = Manifests::new(self.manifests).read()?;
        let mut warnings = reading.warnings;
        let is_usable = reading.objects.iter().any(|object| matches!(object, Object::Service(_)));
        if !is_usable {
            warnings.push("no Service was given: nothing to resolve".to_owned());
        }
        let table = resolve_all(reading.objects, &self.node.name()?, &mut warnings);
        for warning in &warnings {
            output::warning(warning);
        }
        output::print_rows(&view::of_table(&table), self.output)?;
        let is_fine = is_usable && (warnings.is_empty() || !self.strict);
        Ok(if is_fine { ExitCode::SUCCESS } else { NO.into() })
    }
}

fn resolve_all(objects: Vec<Object>, node: &str, warnings: &mut Vec<String>) -> Table {
    let mut store = Store::default();
    let (services, slices) = objects.into_iter().partition(|object| matches!(object, Object::Service(_)));
    store.apply(Event::Listed(Kind::Service, services));
    store.apply(Event::Listed(Kind::Slice, slices));
    let mut table = Table::default();
    for name in store.take_dirty() {
        if let Some(service) = store.service(&name) {
            let resolved = resolve::resolve(service, &store.slices_of(&name), node);
            warnings.extend(resolved.skipped.iter().map(ToString::to_string));
            table.replace(&resolved.precedence, resolved.entries);
        }
    }
    for (frontend, _) in table.iter() {
        let losers = table.losers(frontend);
        warnings.extend(
            losers.map(|(loser, winner)| format!("Service {loser}: {frontend} belongs to Service {winner}, and is left to it")),
        );
    }
    table
}
