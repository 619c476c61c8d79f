//! The planner, and whether its model equals the kernel's tables.

use anyhow::{Context as _, Result};

use crate::{
    maps::{Maps as _, bpf::BpfMaps, grace::Grace, pin::Pins},
    plan::Planner,
};

/// Reads the tables into a new model. A grace period passes after the reading, because the model takes all unused entries as
/// free, even those that programs may still read.
pub fn read(maps: &BpfMaps, pins: &Pins) -> Result<Planner> {
    let snapshot = maps.read().context("failed to read the tables")?;
    Grace::open(pins)?.wait()?;
    Ok(Planner::new(maps.capacity(), snapshot))
}

/// A planner, and whether its model is known to equal the tables. After a failed write, the tables are read before the next
/// plan.
pub struct KnownPlanner {
    planner: Planner,
    is_known: bool,
}

impl KnownPlanner {
    /// Starts with a model of tables that have just been read.
    pub fn new(planner: Planner) -> Self {
        Self { planner, is_known: true }
    }

    /// The planner with its last model, which may differ from the tables after a failed write.
    pub fn last(&self) -> &Planner {
        &self.planner
    }

    /// The planner with its last model, to plan writes and to free retired entries.
    pub fn last_mut(&mut self) -> &mut Planner {
        &mut self.planner
    }

    /// Marks the model as unknown: the tables may differ from it.
    pub fn invalidate(&mut self) {
        self.is_known = false;
    }

    /// Replaces an unknown model by the tables that `read` returns. Returns whether the tables were read: false if the model
    /// is known.
    pub fn refresh(&mut self, read: impl FnOnce() -> Result<Planner>) -> Result<bool> {
        let is_read = !self.is_known;
        if is_read {
            self.replace(read()?);
        }
        Ok(is_read)
    }

    /// Replaces the model by tables that were read. Ids of Service ports and numbers of endpoints are not used a second time.
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
    fn an_unknown_model_is_replaced_by_the_tables() {
        let planner = || Planner::new(Capacity::default(), Snapshot::default());
        let mut model = KnownPlanner::new(planner());
        assert!(!model.refresh(|| bail!("not read")).expect("it is known"));
        model.invalidate();
        for _ in 0..2 {
            model.refresh(|| bail!("the tables cannot be read")).expect_err("it is not known");
        }
        assert!(model.refresh(|| Ok(planner())).expect("they can be read"));
        assert!(!model.refresh(|| bail!("not read")).expect("it is known again"));
    }
}
