//! What the agent holds in the kernel: the lock on the pins, the maps and the programs.
//!
//! An agent adopts the maps it finds. Where it cannot, it makes a set of its own, and lets the programs of the other set serve
//! until its own maps are filled: then the links are taken over, one after the other, and the other set goes.

use anyhow::{Context, Result, bail};
use aya::Ebpf;

use super::{Options, Waiting, status};
use crate::{
    datapath::{
        attach::{self, Attached},
        cgroup::Cgroup,
        load::{self, Constants},
        log::{self, Logger},
        pin::{Lock, Pins},
    },
    maps::{bpf::BpfMaps, grace::Grace},
    privileges,
};

/// The maps and programs of this agent.
pub struct Kernel {
    /// Where they are pinned.
    pub pins: Pins,
    /// The tables.
    pub maps: BpfMaps,
    programs: Ebpf,
    cgroup: Cgroup,
    /// False while another set's programs serve.
    is_attached: bool,
    /// That a program was detached has been said, and that it cannot be helped.
    gave_up: bool,
    _lock: Lock,
}

impl Kernel {
    /// Loads the programs onto the maps, and attaches them unless another set's still serve.
    pub async fn start(options: &Options) -> Result<Self> {
        let find = || Pins::of_version(&options.bpffs, options.abi);
        privileges::check()?;
        let cgroup = Cgroup::open(options.cgroup.as_deref())?;
        let constants = Constants::new(&options.switches, &cgroup)?;
        find().create_root(options.mounting)?;
        let lock = lock(&find(), options.waiting).await?;
        let pins = choose(find(), options)?;
        pins.create()?;
        let programs = attach::load(&pins, options.capacity, &constants)?;
        let is_replacing = pins.others().iter().any(Pins::has_links);
        let mut kernel =
            Self { maps: BpfMaps::open(&pins)?, pins, programs, cgroup, is_attached: false, gave_up: false, _lock: lock };
        status::record_start(&mut kernel.maps)?;
        // Programs may still read what an earlier agent had retired when it ended.
        Grace::open(&kernel.pins)?.wait()?;
        if is_replacing {
            tracing::info!("another set's programs serve until these tables are filled");
        } else {
            kernel.attach()?;
        }
        Ok(kernel)
    }

    /// Takes over from another set, now that the tables are filled.
    pub fn take_over(&mut self) -> Result<()> {
        if self.is_attached {
            return Ok(());
        }
        self.attach()?;
        for error in self.pins.others().iter().flat_map(attach::remove_set) {
            tracing::warn!("{error:#}");
        }
        Ok(())
    }

    /// Attaches again what somebody else has detached. False if that fails.
    pub fn keep_attached(&mut self) -> bool {
        if !self.is_attached {
            return true;
        }
        let missing = attach::detached(&self.pins, &self.cgroup);
        if missing.is_empty() {
            self.gave_up = false;
            return true;
        }
        let attached = self.attach();
        let is_attached = attached.is_ok();
        match attached {
            Ok(()) => tracing::warn!("{} had been detached by somebody else: attached again", missing.join(", ")),
            Err(error) if !self.gave_up => {
                self.gave_up = true;
                tracing::error!("{} had been detached by somebody else, and {error:#}", missing.join(", "));
            }
            Err(_) => {}
        }
        is_attached
    }

    /// The programs' diagnostics.
    pub fn diagnostics(&mut self) -> Result<Logger> {
        log::open(&mut self.programs)
    }

    fn attach(&mut self) -> Result<()> {
        let path = self.cgroup.path.display();
        match attach::attach(&mut self.programs, &self.pins, &self.cgroup)? {
            Attached::New => tracing::info!("attached to {path}"),
            Attached::Replaced => tracing::info!("took over from an earlier agent at {path}"),
        }
        self.is_attached = true;
        Ok(())
    }
}

/// Becomes the one that writes.
async fn lock(pins: &Pins, waiting: Waiting) -> Result<Lock> {
    if let Some(lock) = pins.lock()? {
        return Ok(lock);
    }
    let holder = format!("another agent{} writes to {}", status::holder(pins), pins.root().display());
    match waiting {
        Waiting::No => bail!("{holder}; stop it first, or wait for its end with --wait"),
        Waiting::ForLock => {
            tracing::info!("{holder}: waiting for its end");
            let pins = pins.clone();
            let waited = tokio::task::spawn_blocking(move || pins.wait_for_lock());
            waited.await.context("the wait for the other agent crashed")?
        }
    }
}

/// The set to work on: the one in use, if its maps are what was asked for, else a new one. Removes what a start that did not
/// come to its end has left.
fn choose(in_use: Pins, options: &Options) -> Result<Pins> {
    if let Ok(mut earlier) = BpfMaps::open(&in_use) {
        // At once: until then the tables say that an agent is synced, and mean the one before.
        status::record_start(&mut earlier)?;
    }
    let pins = match load::difference(&in_use, options.capacity)? {
        None => in_use,
        Some(difference) => {
            tracing::info!("{difference}: a new set of maps is made");
            in_use.next()
        }
    };
    for error in pins.others().iter().filter(|other| !other.has_links()).flat_map(attach::remove_set) {
        tracing::warn!("{error:#}");
    }
    Ok(pins)
}
