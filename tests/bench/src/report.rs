//! The result of a measurement. It prints as a table, and serializes to JSON.

use std::fmt;

use portmap_harness::pod_bench;
use serde::Serialize;

use crate::Size;
use crate::figures::{Aim, Figures};
use crate::machine::Machine;
use crate::programs::ProgramTime;

/// The result of one run of `portmap-bench`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The measurement's name, as on the command line.
    pub bench: &'static str,
    /// A description of the measurement in one sentence, for people.
    pub about: String,
    /// Properties of the machine that ran the measurement.
    pub machine: Machine,
    /// The size of the artificial cluster whose Services were in the maps.
    pub size: Size,
    /// Times of clients' calls, one report per call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connect: Vec<pod_bench::Report>,
    /// Run times of the BPF programs; empty if they were not measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramTime>,
    /// All figures except the times of clients' calls and of BPF programs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<Section>,
    /// The project's performance limits, each with its measurement; empty if none applies to this size.
    pub aims: Vec<Aim>,
}

/// A group of figures with a common unit.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// The section's name in JSON.
    pub name: &'static str,
    /// The section's title in tables.
    pub title: String,
    /// The unit of all figures.
    pub unit: &'static str,
    /// The measured quantities.
    pub rows: Vec<Row>,
}

/// The figures of one quantity.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The name of the quantity.
    pub name: &'static str,
    /// The distribution of its measurements.
    #[serde(flatten)]
    pub figures: Figures,
}

impl Report {
    /// Whether all figures are within their limits.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.aims.iter().all(|aim| aim.met)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bench: _, about, machine, size, connect, programs, sections, aims } = self;
        writeln!(f, "{about}\n{} Services × {} endpoints; {machine}", size.services, size.endpoints)?;
        for connect in connect {
            write!(f, "\n{connect}")?;
        }
        if !programs.is_empty() {
            writeln!(
                f,
                "\nRun times of the BPF programs, hits and misses together\n{:<14}{:>5}{:>10}{:>10}",
                "", "", "runs", "mean ns"
            )?;
            programs.iter().try_for_each(|program| writeln!(f, "{program}"))?;
        }
        for section in sections {
            write!(f, "\n{section}")?;
        }
        if !aims.is_empty() {
            writeln!(f)?;
        }
        aims.iter().try_for_each(|aim| writeln!(f, "{aim}"))
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name: _, title, unit, rows } = self;
        let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
        writeln!(f, "{title}, in {unit}")?;
        writeln!(f, "{:width$}{:>10}{:>10}{:>10}{:>10}", "", "min", "p50", "p99", "max")?;
        for Row { name, figures: Figures { min, p50, p99, max } } in rows {
            writeln!(f, "{name:width$}{min:>10.2}{p50:>10.2}{p99:>10.2}{max:>10.2}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quantity, limit, measured, met } = self;
        let verdict = if *met { "met" } else { "missed" };
        write!(f, "aim: {quantity} ≤ {limit}: {verdict}, measured {measured:.3}")
    }
}
