//! What a measurement says in the end, for people and for programs.

use std::fmt;

use portmap_harness::pod_bench;
use serde::Serialize;

use crate::Size;
use crate::figures::{Aim, Figures};
use crate::machine::Machine;
use crate::programs::ProgramTime;

/// The result of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The measurement's name.
    pub bench: &'static str,
    /// What was measured, and how.
    pub about: String,
    /// Where.
    pub machine: Machine,
    /// With how much in the tables.
    pub size: Size,
    /// Times of calls, by what was timed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connect: Vec<pod_bench::Report>,
    /// Times of the programs themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramTime>,
    /// Everything else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<Section>,
    /// What the figures should have been.
    pub aims: Vec<Aim>,
}

/// Figures that belong together.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// For programs to find it by.
    pub name: &'static str,
    /// What was measured.
    pub title: String,
    /// The unit of all its figures.
    pub unit: &'static str,
    /// One for each thing measured.
    pub rows: Vec<Row>,
}

/// The figures of one thing.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: &'static str,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

impl Report {
    /// Whether every aim was met.
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
            writeln!(f, "\nEach program, with hits and misses alike\n{:<14}{:>5}{:>10}{:>10}", "", "", "runs", "mean ns")?;
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
        let Self { what, limit, measured, met } = self;
        let verdict = if *met { "met" } else { "missed" };
        write!(f, "aim: {what} ≤ {limit}: {verdict} with {measured:.3}")
    }
}
