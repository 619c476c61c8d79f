//! The planner, and whether its model is that of the kernel's tables.

use anyhow::{Context as _, Result};

use crate::{
    maps::{Maps as _, bpf::BpfMaps, grace::Grace, pin::Pins},
    plan::Planner,
};

/// Reads the tables into a new model. A grace period passes after the reading: entries that were retired before it are free in the
/// model.
pub fn read(maps: &BpfMaps, pins: &Pins) -> Result<Planner> {
    let snapshot = maps.read().context("failed to read the tables")?;
    Grace::open(pins)?.wait()?;
    Ok(Planner::new(maps.capacity(), snapshot))
}

/// After a failed write only the kernel knows what its tables hold: nothing is planned before they were read again.
pub struct KnownPlanner {
    planner: Planner,
    is_known: bool,
}

impl KnownPlanner {
    /// A model of tables that have just been read.
    pub fn new(planner: Planner) -> Self {
        Self { planner, is_known: true }
    }

    /// The planner as it was last known: for what does not depend on every entry.
    pub fn last(&mut self) -> &mut Planner {
        &mut self.planner
    }

    /// How many frontends the tables hold.
    pub fn frontends(&self) -> usize {
        self.planner.frontends()
    }

    /// The tables may be others than the model says.
    pub fn doubt(&mut self) {
        self.is_known = false;
    }

    /// The planner to plan with, from tables that are read if they have to be. True if they were read.
    pub fn know(&mut self, read: impl FnOnce() -> Result<Planner>) -> Result<bool> {
        let is_read = !self.is_known;
        if is_read {
            self.replace(read()?);
        }
        Ok(is_read)
    }

    /// Goes on from the tables as they were read. The numbers that were given stay given, whatever the tables say.
    pub fn replace(&mut self, mut read: Planner) {
        read.continue_numbers_of(&self.planner);
        (self.planner, self.is_known) = (read, true);
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;
    use crate::maps::{Capacity, Snapshot};

    #[test]
    fn a_doubtful_model_is_not_planned_with_before_the_tables_were_read() {
        let planner = || Planner::new(Capacity::default(), Snapshot::default());
        let mut model = KnownPlanner::new(planner());
        assert!(!model.know(|| bail!("nobody reads")).expect("it is known"));
        model.doubt();
        for _ in 0..2 {
            model.know(|| bail!("the tables cannot be read")).expect_err("it is not known");
        }
        assert!(model.know(|| Ok(planner())).expect("they can be read"));
        assert!(!model.know(|| bail!("nobody reads")).expect("it is known again"));
    }
}
