//! `portmap verify`: compares the kernel's tables with the table that the objects lead to.
//!
//! The objects and the tables are read one after the other, while the agent may write. So a difference counts only if it is
//! there again after a moment.

mod reading;
mod repair;

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, Color};
use portmap::{
    inspect::differences::{Backends, Difference, Field, Kind},
    maps::pin::Pins,
};
use serde::Serialize;

use super::{
    NO, PinsArguments,
    objects::SourceArguments,
    output::{self, Format},
};
use reading::{Differences, Reader};

/// The most entries besides frontends that the text lists; JSON and YAML list all.
const SHOWN: usize = 10;

#[derive(Debug, Args)]
#[command(
    after_help = "Give the same --manifests, --node-name, --service-cidr and other selections as to the agent. Exit codes: \
                        0 the tables agree with the objects, 1 they differ, 2 wrong usage, 3 failure."
)]
pub struct Arguments {
    #[command(flatten)]
    source: SourceArguments,
    #[command(flatten)]
    pins: PinsArguments,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Ask the running agent to compare and repair the tables, and verify the result
    #[arg(long)]
    repair: bool,
}

/// The output of `portmap verify`. The names and values of its JSON are a stable contract.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Whether the tables agree with the objects, after a repair if there was one.
    equal: bool,
    /// The number of desired frontends. A node port counts once for each address of the node.
    frontends: usize,
    /// The differences by frontend.
    differences: Vec<Difference>,
    /// Writes that the agent would make to other entries than frontends. Empty if a frontend differs.
    other_entries: Vec<String>,
    /// With `--repair`: the frontends that differed before, and do not differ any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<Vec<Difference>>,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let pins = self.pins.open()?;
        pins.expect()?;
        let mut reader = Reader::new(self.source.open()?, pins.clone());
        let (frontends, found) = reader.differences()?;
        let repaired = if self.repair && !found.is_empty() { repair(&mut reader, &pins, &found)? } else { None };
        for warning in reader.warnings() {
            output::warning(warning);
        }
        let (differences, repaired) = match repaired {
            Some(rest) => (rest.clone(), Some(found.without(&rest))),
            None => (found, self.repair.then(Vec::new)),
        };
        let report = Report {
            equal: differences.is_empty(),
            frontends,
            differences: differences.frontends.into_values().collect(),
            other_entries: differences.others.into_iter().collect(),
            repaired,
        };
        if !output::print_data(&report, self.output)? {
            print_text(&report)?;
        }
        Ok(if report.equal { ExitCode::SUCCESS } else { NO.into() })
    }
}

/// Asks the agent for a comparison, and returns the remaining differences. `None`, and a warning, if no agent can be asked.
fn repair(reader: &mut Reader, pins: &Pins, found: &Differences) -> Result<Option<Differences>> {
    match repair::repair(reader, pins) {
        Ok(rest) => Ok(Some(rest)),
        Err(error) if error.is::<repair::Refused>() => {
            output::warning(&format!("{} differences are not repaired: {error:#}", found.count()));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn print_text(report: &Report) -> Result<()> {
    if let Some(repaired) = report.repaired.as_deref().filter(|repaired| !repaired.is_empty()) {
        print_differences("repaired", Color::Green, repaired)?;
    }
    if !report.differences.is_empty() {
        print_differences("DIFFERS", Color::Red, &report.differences)?;
    }
    for entry in report.other_entries.iter().take(SHOWN) {
        output::print(&format!("other entries: the agent would {entry}\n"))?;
    }
    let hidden = report.other_entries.len().saturating_sub(SHOWN);
    if hidden > 0 {
        output::print(&format!("other entries: and {hidden} more writes\n"))?;
    }
    let frontends = report.frontends;
    output::print(&match (report.equal, report.differences.len()) {
        (true, _) => format!("the kernel's tables agree with the objects: {frontends} frontends\n"),
        (false, 0) => format!("all {frontends} frontends agree with the objects, and other entries differ\n"),
        (false, 1) => format!("1 frontend differs; the objects have {frontends}\n"),
        (false, count) => format!("{count} frontends differ; the objects have {frontends}\n"),
    })
}

fn print_differences(result: &str, color: Color, differences: &[Difference]) -> Result<()> {
    let mut table = output::new_table(&["FRONTEND", "SERVICE", "RESULT", "DIFFERENCE"]);
    for difference in differences {
        table.add_row([
            Cell::new(&difference.frontend),
            Cell::new(if difference.service.is_empty() { "-" } else { &difference.service }),
            Cell::new(result).fg(color),
            Cell::new(text(difference)),
        ]);
    }
    output::print_table(&table)
}

fn text(difference: &Difference) -> String {
    let mut parts: Vec<String> = difference.fields.iter().map(field).collect();
    parts.extend(difference.backends.as_ref().map(|backends| self::backends("backends", backends)));
    parts.extend(difference.external_backends.as_ref().map(|backends| self::backends("backends for outside", backends)));
    match difference.kind {
        Kind::Missing => parts.push("missing in the kernel".to_owned()),
        Kind::Extra => parts.push("in the kernel, and not desired".to_owned()),
        Kind::Invalid => parts.push("the kernel has a value that no agent writes".to_owned()),
        Kind::Different => {}
    }
    parts.extend(difference.reason.clone());
    parts.join("; ")
}

fn field(field: &Field) -> String {
    let Field { name, desired, found } = field;
    let value = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    format!("{name} is {} instead of {}", value(found), value(desired))
}

fn backends(name: &str, backends: &Backends) -> String {
    let Backends { missing, extra } = backends;
    let some = |verb: &str, texts: &[String]| (!texts.is_empty()).then(|| format!("{verb} {}", output::shorten(texts)));
    let parts: Vec<String> = [some("lack", missing), some("have in addition", extra)].into_iter().flatten().collect();
    format!("{name} {}", parts.join(", "))
}
