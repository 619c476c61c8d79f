//! The kernel's tables for an explanation, if this machine has some.

use anyhow::Result;
use portmap::{
    inspect::explain::{Explanation, KernelRow, kernel},
    maps::bpf::BpfMaps,
    model::{Entry, Frontend},
};

use crate::cli::{PinsArguments, status};

/// The tables, and the programs that do not use them because they are not attached.
pub struct Tables {
    pub maps: BpfMaps,
    detached: Vec<&'static str>,
}

/// The kernel's tables, or the reason why they cannot be read.
pub struct Kernel(pub Result<Tables, String>);

impl Kernel {
    pub fn open(pins: &PinsArguments) -> Self {
        let open = || {
            let pins = pins.open()?;
            pins.expect()?;
            Ok(Tables { maps: BpfMaps::open(&pins)?, detached: status::detached(&pins)? })
        };
        Self(open().map_err(|error: anyhow::Error| format!("{error:#}")))
    }

    /// The inode of the agent's network namespace; none without tables.
    pub fn network(&self) -> Result<Option<u64>> {
        self.0.as_ref().ok().map(|tables| Ok(tables.maps.state()?.network)).transpose()
    }

    /// Compares the tables with the explanation of a frontend, and adds their treatment. `entry`: the desired entry.
    pub fn add(&self, explanation: &mut Explanation, frontend: &Frontend, entry: Option<Entry>) -> Result<()> {
        let row = match &self.0 {
            Ok(tables) => {
                let detached = tables.detached.iter().copied().filter(|program| kernel::concerns(program, frontend)).collect();
                let snapshot = tables.maps.read_one(frontend)?;
                KernelRow { detached, ..kernel::compare(&snapshot, frontend, entry, explanation.action) }
            }
            Err(reason) => KernelRow { unread: Some(reason.clone()), ..KernelRow::default() },
        };
        explanation.add_kernel(row);
        Ok(())
    }
}
