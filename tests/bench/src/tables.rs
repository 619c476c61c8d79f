//! Creates the real maps, and attaches the real BPF programs to a test's cgroup, as the agent does at its start.

use anyhow::{Context as _, Result};
use aya::Ebpf;
use portmap::datapath::attach;
use portmap::datapath::cgroup::Cgroup;
use portmap::datapath::devices;
use portmap::datapath::load::{Constants, Switches};
use portmap::datapath::removal;
use portmap::maps::Capacity;
use portmap::maps::bpf::BpfMaps;
use portmap::maps::grace::Grace;
use portmap::maps::pin::{Lock, Pins};
use portmap_harness::world::{Group, World};

/// Pinned maps and attached programs. The maps are empty at first. Dropping this detaches and removes everything.
pub struct Tables {
    pins: Pins,
    capacity: Capacity,
    _lock: Lock,
    // Keeps the cgroup until the programs are detached.
    world: World,
}

impl Tables {
    /// Creates the maps in the bpffs directory of the [`World`], and attaches the programs to its cgroup of clients.
    pub fn create(world: &World, capacity: Capacity) -> Result<Self> {
        Self::create_with(world, capacity, &Switches::default())
    }

    /// As [`Self::create`], with other settings of the programs.
    pub fn create_with(world: &World, capacity: Capacity, switches: &Switches) -> Result<Self> {
        let pins = Pins::new(world.bpffs());
        pins.create()?;
        let lock = pins.lock()?.context("another process writes to the maps")?;
        let tables = Self { pins, capacity, _lock: lock, world: world.clone() };
        let cgroup = tables.cgroup()?;
        attach::attach(&mut tables.load(switches, &cgroup)?, &tables.pins, &cgroup)?;
        Ok(tables)
    }

    /// Loads the programs once more, with those for network devices. Attaches none.
    pub fn load_for_devices(&self) -> Result<Ebpf> {
        let mut programs = self.load(&Switches::default(), &self.cgroup()?)?;
        devices::load(&mut programs)?;
        Ok(programs)
    }

    fn load(&self, switches: &Switches, cgroup: &Cgroup) -> Result<Ebpf> {
        attach::load(&self.pins, self.capacity, &Constants::new(switches, cgroup, self.capacity)?)
    }

    fn cgroup(&self) -> Result<Cgroup> {
        Cgroup::open(Some(&self.world.cgroup(Group::Clients)))
    }

    /// The directory in which maps and links are pinned.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The capacity of the maps.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Opens the pinned maps; every call opens them again.
    pub fn maps(&self) -> Result<BpfMaps> {
        BpfMaps::open(&self.pins)
    }

    /// Waits for a grace period. After it, no BPF program reads entries that were replaced or removed before the call.
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
