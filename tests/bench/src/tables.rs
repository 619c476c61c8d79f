//! The real maps, with the real programs attached to a cgroup of a world: what an agent has after its start.

use anyhow::{Context as _, Result};
use portmap::datapath::attach;
use portmap::datapath::cgroup::Cgroup;
use portmap::datapath::load::{Constants, Switches};
use portmap::datapath::removal;
use portmap::maps::Capacity;
use portmap::maps::bpf::BpfMaps;
use portmap::maps::grace::Grace;
use portmap::maps::pin::{Lock, Pins};
use portmap_harness::world::{Group, World};

/// Empty at first. Detached and removed when dropped.
pub struct Tables {
    pins: Pins,
    capacity: Capacity,
    _lock: Lock,
    // The cgroup must not go before what is attached to it.
    _world: World,
}

impl Tables {
    /// Makes the maps where the world has its pins, and attaches the programs to its clients.
    pub fn create(world: &World, capacity: Capacity) -> Result<Self> {
        Self::create_with(world, capacity, &Switches::default())
    }

    /// As [`Self::create`], with programs that are told something else than usual.
    pub fn create_with(world: &World, capacity: Capacity, switches: &Switches) -> Result<Self> {
        let pins = Pins::new(world.bpffs());
        pins.create()?;
        let lock = pins.lock()?.context("another process writes to the maps")?;
        let tables = Self { pins, capacity, _lock: lock, _world: world.clone() };
        let cgroup = Cgroup::open(Some(&world.cgroup(Group::Clients)))?;
        let mut programs = attach::load(&tables.pins, capacity, &Constants::new(switches, &cgroup, capacity)?)?;
        attach::attach(&mut programs, &tables.pins, &cgroup)?;
        Ok(tables)
    }

    /// Where they are pinned.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Their sizes.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Opens the maps.
    pub fn maps(&self) -> Result<BpfMaps> {
        BpfMaps::open(&self.pins)
    }

    /// Waits until no program reads what is not in use any more.
    pub fn wait_for_readers(&self) -> Result<()> {
        Grace::open(&self.pins)?.wait()
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        let failed = match removal::clean_up(&self.pins) {
            Ok((_, failed)) => failed,
            Err(error) => vec![error],
        };
        for error in failed {
            eprintln!("warning: {error:#}");
        }
    }
}
