//! `portmap resolve`: the desired table for objects in files, without access to the kernel's tables.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use portmap::{
    inspect::table,
    model::event::{Object, Wanted},
    resolve::desired::Desired,
    source::manifests::{self, Manifests},
};
use tracing::subscriber::NoSubscriber;

use super::{
    NO, ObjectArguments,
    output::{self, Format},
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// File, directory of files, or - for standard input; repeatable
    #[arg(long, value_name = "PATH", required = true)]
    manifests: Vec<PathBuf>,
    #[command(flatten)]
    objects: ObjectArguments,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Exit with 1 after any warning
    #[arg(long)]
    strict: bool,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let wanted = self.objects.wanted()?;
        let reading = Manifests::new(self.manifests, wanted.clone()).read_once()?;
        let mut warnings = reading.warnings;
        let is_usable = reading.objects.iter().any(|object| matches!(object, Object::Service(..)));
        if !is_usable {
            warnings.push("no Service was given: nothing to resolve".to_owned());
        }
        let desired = resolve_all(reading.objects, &wanted, &mut warnings);
        for warning in &warnings {
            output::warning(warning);
        }
        output::print_rows(&table::of_desired(&desired), self.output)?;
        let is_fine = is_usable && (warnings.is_empty() || !self.strict);
        Ok(if is_fine { ExitCode::SUCCESS } else { NO.into() })
    }
}

fn resolve_all(objects: Vec<Object>, wanted: &Wanted, warnings: &mut Vec<String>) -> Desired {
    let mut desired = Desired::new(wanted.node.clone(), Vec::new(), Vec::new()).allowing(wanted.external_ips.clone());
    for event in manifests::listed(objects) {
        desired.apply(event);
    }
    // The resolver's log lines are suppressed, because the same texts are printed below as warnings.
    tracing::subscriber::with_default(NoSubscriber::default(), || desired.resolve());
    warnings.extend(desired.skipped().map(ToString::to_string));
    let table = desired.table();
    for spec in table.frontend_specs() {
        let conflicts = table.conflicts(spec);
        warnings.extend(
            conflicts.map(|(other, holder)| format!("Service {other}: {spec} belongs to Service {holder}, and is left to it")),
        );
    }
    desired
}
