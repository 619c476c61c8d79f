//! Counts of compared frontends. A run that compared too little fails.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, ensure};

use crate::deviation::Deviation;
use crate::model::{Answer, Verdict};

/// The kind of a frontend, and the results for clients inside and outside.
type Case = (&'static str, &'static str, &'static str);

/// Cases that every run must have, with every seed.
const EXPECTED: [Case; 15] = [
    ("ClusterIP", "forward", "forward"),
    ("ClusterIP", "refuse", "refuse"),
    ("ClusterIP", "drop", "drop"),
    ("NodePort", "forward", "forward"),
    ("NodePort", "forward", "other backends"),
    ("NodePort", "forward", "drop"),
    ("NodePort", "refuse", "refuse"),
    ("ExternalIP", "forward", "forward"),
    ("ExternalIP", "forward", "drop"),
    ("ExternalIP", "refuse", "refuse"),
    ("LoadBalancer", "forward", "forward"),
    ("LoadBalancer", "forward", "other backends"),
    ("LoadBalancer", "forward", "drop"),
    ("LoadBalancer", "refuse", "refuse"),
    ("other ports", "refuse", "refuse"),
];

/// Numbers of compared frontends. A frontend counts in each comparison.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    cases: BTreeMap<Case, usize>,
    affinity: usize,
    sources: usize,
    deviations: BTreeMap<Deviation, usize>,
}

impl Tally {
    /// Counts a frontend with equal results.
    pub fn agree(&mut self, kind: &'static str, answer: &Answer) {
        let Answer { inside, outside, affinity, sources } = answer;
        let differs = inside != outside && matches!(outside, Verdict::Forward(_));
        let outside = if differs { "other backends" } else { outside.name() };
        *self.cases.entry((kind, inside.name(), outside)).or_default() += 1;
        self.affinity += usize::from(affinity.is_some());
        self.sources += usize::from(sources.is_some());
    }

    pub fn deviate(&mut self, deviation: Deviation) {
        *self.deviations.entry(deviation).or_default() += 1;
    }

    /// Fails if an expected case, session affinity or source ranges were not compared.
    pub fn check(&self) -> Result<()> {
        let missing: Vec<_> = EXPECTED.iter().filter(|case| !self.cases.contains_key(case)).collect();
        ensure!(missing.is_empty(), "nothing was compared of {missing:?}");
        ensure!(self.affinity > 0 && self.sources > 0, "no session affinity or no source range was compared");
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cases, affinity, sources, deviations } = self;
        writeln!(
            f,
            "{} equal frontends, of these {affinity} with affinity, {sources} with source ranges",
            cases.values().sum::<usize>()
        )?;
        for ((kind, inside, outside), count) in cases {
            writeln!(f, "  {count:>7}  {kind}: {inside}; outside: {outside}")?;
        }
        for (deviation, count) in deviations {
            writeln!(f, "  {count:>7}  differ: {}", deviation.paragraph())?;
        }
        Ok(())
    }
}
