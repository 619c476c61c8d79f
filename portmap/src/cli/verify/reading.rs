//! Reads the objects and the kernel's tables, and compares them.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic, thread,
};

use anyhow::Result;
use portmap::{
    inspect::differences::{self, Difference},
    maps::{Maps as _, bpf::BpfMaps, pin::Pins},
    model::{Frontend, event::Object},
    parallel,
    plan::{Plan, Planner},
    resolve::{
        changes::{ChangedEntries, Changes},
        desired::Desired,
    },
};

use crate::cli::objects::{PAUSE, READINGS, Source, agent_addresses};

/// The differences of one reading, or those that several readings agree on.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// By frontend.
    pub frontends: BTreeMap<Frontend, Difference>,
    /// The writes that the agent would make to other entries. Empty if a frontend differs.
    pub others: BTreeSet<String>,
}

impl Differences {
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    pub fn count(&self) -> usize {
        self.frontends.len() + self.others.len()
    }

    /// The frontends of these differences that are not in `rest`.
    pub fn without(self, rest: &Self) -> Vec<Difference> {
        let is_gone = |(frontend, difference)| (!rest.frontends.contains_key(&frontend)).then_some(difference);
        self.frontends.into_iter().filter_map(is_gone).collect()
    }

    /// The differences of this reading that were there in the one before.
    fn confirmed_by(self, before: &Self) -> Self {
        let common = |(frontend, difference): (Frontend, Difference)| {
            Some((frontend, difference.common(before.frontends.get(&frontend)?)?))
        };
        Self {
            frontends: self.frontends.into_iter().filter_map(common).collect(),
            others: self.others.intersection(&before.others).cloned().collect(),
        }
    }
}

/// Reads the objects and the tables again and again.
pub struct Reader {
    source: Source,
    pins: Pins,
    /// The objects of the first reading, if they cannot be read again.
    kept: Option<Vec<Object>>,
    warnings: Vec<String>,
}

impl Reader {
    pub fn new(source: Source, pins: Pins) -> Self {
        Self { source, pins, kept: None, warnings: Vec::new() }
    }

    /// The warnings of the last reading.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The number of desired frontends, and the differences that two readings agree on.
    pub fn differences(&mut self) -> Result<(usize, Differences)> {
        let (mut frontends, mut last) = self.read()?;
        for _ in 1..READINGS {
            if last.is_empty() {
                break;
            }
            thread::sleep(PAUSE);
            let (count, now) = self.read()?;
            let confirmed = now.clone().confirmed_by(&last);
            if !confirmed.is_empty() {
                return Ok((count, confirmed));
            }
            (frontends, last) = (count, now);
        }
        Ok((frontends, Differences::default()))
    }

    fn read(&mut self) -> Result<(usize, Differences)> {
        let maps = BpfMaps::open(&self.pins)?;
        self.warnings.clear();
        let (local, warning) = agent_addresses(maps.state()?.network)?;
        self.warnings.extend(warning);
        let tables = thread::spawn(move || (maps.read().map(|snapshot| Planner::new(maps.capacity(), snapshot)), maps));
        let objects = self.objects()?;
        let desired = self.source.resolve(objects, local);
        let (planner, maps) = tables.join().unwrap_or_else(|error| panic::resume_unwind(error));
        compare(&desired, &maps, planner?)
    }

    fn objects(&mut self) -> Result<Vec<Object>> {
        if let Some(kept) = &self.kept {
            return Ok(kept.clone());
        }
        let (objects, warnings) = self.source.read()?;
        self.warnings.extend(warnings);
        if !self.source.is_repeatable() {
            self.kept = Some(objects.clone());
        }
        Ok(objects)
    }
}

/// Compares by the plan of an agent that would start now. Without writes, everything agrees. Otherwise the frontends are compared
/// one by one, because the writes are hard to read.
///
/// The agent may write between two readings of the tables. So the second comparison, and the writes to other entries, come from
/// one reading: writes for an older one may be made to frontends that agree by now.
fn compare(desired: &Desired, maps: &BpfMaps, planner: Planner) -> Result<(usize, Differences)> {
    let (capacity, all) = (maps.capacity(), desired.table().everything());
    let count = all.frontends.len();
    let Plan { steps, left_out, without_room: _ } = plan(desired, &all, planner);
    if steps.is_empty() && left_out.is_empty() {
        return Ok((count, Differences::default()));
    }
    let snapshot = maps.read()?;
    let entries = desired.changed(&all).frontends.filter_map(|(frontend, entry)| Some((frontend, entry?)));
    let mut frontends = differences::between(entries, &snapshot);
    for (frontend, full) in left_out {
        if let Some(difference) = frontends.get_mut(&frontend) {
            difference.reason = Some(format!("the agent leaves it out: {}", full.advice(capacity)));
        }
    }
    let others = if frontends.is_empty() { plan(desired, &all, Planner::new(capacity, snapshot)).steps } else { Vec::new() };
    Ok((count, Differences { frontends, others: others.iter().map(ToString::to_string).collect() }))
}

/// The plan of an agent that would start now. `planner`: the model of the tables as they were read.
fn plan(desired: &Desired, all: &Changes, mut planner: Planner) -> Plan {
    let mut changes = all.clone();
    changes.extend(planner.everything());
    planner.set_cidrs(&desired.cidrs(), desired.owners());
    let ChangedEntries { owners, frontends } = desired.changed(&changes);
    parallel::ahead(frontends, |frontends| planner.plan(ChangedEntries { owners, frontends }))
}
