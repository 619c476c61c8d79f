//! Reads the counters of all Service ports.

use anyhow::Result;
use portmap::{
    inspect::top::{self, NamedPort, Sums},
    kernel::uptime,
    maps::{Maps as _, bpf::BpfMaps, pin::Pins},
};

/// The maps of the set in use, and the service entries in them.
pub struct Reader {
    pins: Pins,
    maps: BpfMaps,
    ports: Vec<NamedPort>,
    /// The number of each service entry, and the id of its Service port.
    numbers: Vec<(u32, u64)>,
    /// When the entries were read, in seconds since boot.
    read: u64,
}

impl Reader {
    /// Opens the maps, and reads the service entries.
    pub fn open(pins: &Pins) -> Result<Self> {
        let mut reader =
            Self { pins: pins.clone(), maps: BpfMaps::open(pins)?, ports: Vec::new(), numbers: Vec::new(), read: 0 };
        reader.read_entries()?;
        Ok(reader)
    }

    /// The Service ports, in the order of their names.
    pub fn ports(&self) -> &[NamedPort] {
        &self.ports
    }

    /// The counters of each Service port, summed over its frontends.
    pub fn sums(&mut self) -> Result<Sums> {
        self.follow()?;
        let mut sums = Sums::default();
        for (number, id) in &self.numbers {
            let counters = self.maps.counters(*number)?;
            *sums.entry(*id).or_default() += counters;
        }
        Ok(sums)
    }

    /// Time when the agent last wrote or compared, in seconds since boot.
    pub fn last_sync(&self) -> Result<u64> {
        Ok(self.maps.state()?.last_sync)
    }

    /// Reads the entries again if an agent has written since. Opens another set of maps if an agent has replaced the set.
    fn follow(&mut self) -> Result<()> {
        let in_use = self.pins.in_use();
        if in_use != self.pins {
            self.maps = BpfMaps::open(&in_use)?;
            self.pins = in_use;
            self.read_entries()?;
        } else if self.last_sync()? >= self.read {
            self.read_entries()?;
        }
        Ok(())
    }

    fn read_entries(&mut self) -> Result<()> {
        self.read = uptime::now().as_secs();
        let tables = self.maps.read()?;
        self.ports = top::ports(tables.owners());
        let entries = tables.frontends.iter().filter_map(|(_, found)| Some((found.number, found.service?.id)));
        self.numbers = entries.collect();
        Ok(())
    }
}
