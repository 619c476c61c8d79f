//! What the agent holds in the kernel: the lock on the pins, the maps and the programs.
//!
//! An agent adopts the maps it finds. Where it cannot, it makes a set of its own, and lets the programs of the other set serve
//! until its own maps are filled: then the links are taken over, one after the other, and the other set goes.

use anyhow::{Context, Result, bail};
use aya::Ebpf;

use super::{Options, Waiting, record};
use crate::{
    datapath::{
        attach::{self, Attached},
        cgroup::Cgroup,
        load::{self, Constants, LogLevel, Switches},
        log::{self, Logger},
        removal,
    },
    kernel::{exhaustion::is_exhausted, privileges},
    maps::{
        Capacity,
        bpf::BpfMaps,
        grace::Grace,
        pin::{Lock, Missing, Pins},
    },
};

/// The maps and programs of this agent.
pub struct Datapath {
    /// Where they are pinned.
    pub pins: Pins,
    /// The tables.
    pub maps: BpfMaps,
    programs: Ebpf,
    cgroup: Cgroup,
    switches: Switches,
    capacity: Capacity,
    /// What the programs were told.
    constants: Constants,
    /// False while another set's programs serve.
    is_attached: bool,
    /// Why the programs could not be kept attached, as said last.
    trouble: Option<String>,
    _lock: Lock,
}

impl Datapath {
    /// Loads the programs onto the maps, and attaches them unless another set's still serve.
    pub async fn start(options: &Options) -> Result<Self> {
        let find = || Pins::of_version(&options.bpffs, options.abi);
        privileges::check()?;
        let cgroup = Cgroup::open(options.cgroup.as_deref())?;
        let constants = Constants::new(&options.switches, &cgroup, options.capacity)?;
        let lock = lock(find, options).await?;
        let pins = choose(find(), options)?;
        pins.create()?;
        let programs = attach::load(&pins, options.capacity, &constants)?;
        let is_replacing = pins.others()?.iter().any(Pins::has_links);
        let mut datapath = Self {
            maps: BpfMaps::open(&pins)?,
            pins,
            programs,
            cgroup,
            switches: options.switches.clone(),
            capacity: options.capacity,
            constants,
            is_attached: false,
            trouble: None,
            _lock: lock,
        };
        record::record_start(&mut datapath.maps)?;
        // Programs may still read what an earlier agent had retired when it ended.
        Grace::open(&datapath.pins)?.wait()?;
        if is_replacing {
            tracing::info!("another set's programs serve until these tables are filled");
        } else {
            datapath.attach()?;
        }
        Ok(datapath)
    }

    /// Takes over from another set, now that the tables are filled.
    pub fn take_over(&mut self) -> Result<()> {
        if self.is_attached {
            return Ok(());
        }
        let others = self.pins.others()?;
        self.attach()?;
        for error in others.iter().flat_map(removal::remove_set) {
            tracing::warn!("{error:#}");
        }
        Ok(())
    }

    /// Attaches again what somebody else has detached, and to a cgroup that was removed and made again. False if that fails.
    pub fn keep_attached(&mut self) -> bool {
        if !self.is_attached {
            return true;
        }
        let Err(error) = self.attach_again() else {
            self.trouble = None;
            return true;
        };
        let trouble = format!("{error:#}");
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::error!("failed to keep the programs attached: {trouble}; trying again each second");
            self.trouble = Some(trouble);
        }
        // Not to be able to look, for want of descriptors say, is another matter.
        is_exhausted(&error)
    }

    fn attach_again(&mut self) -> Result<()> {
        if self.follow_cgroup()? {
            self.attach()?;
            tracing::warn!("the cgroup {} was removed and made again: attached to it", self.cgroup.path.display());
        }
        let missing = attach::detached(&self.pins, &self.cgroup)?;
        if !missing.is_empty() {
            self.attach().with_context(|| format!("{} had been detached by somebody else", missing.join(", ")))?;
            tracing::warn!("{} had been detached by somebody else: attached again", missing.join(", "));
        }
        self.follow_excluded()
    }

    /// Goes by the directory that the cgroup's path leads to now. Returns whether it is another one.
    fn follow_cgroup(&mut self) -> Result<bool> {
        let Some(successor) = self.cgroup.successor()? else { return Ok(false) };
        self.cgroup = successor;
        Ok(true)
    }

    /// Loads the programs anew where an excluded cgroup was removed and made again: its number is one of their constants.
    fn follow_excluded(&mut self) -> Result<()> {
        let Some(constants) = self.constants.successor(&self.switches, &self.cgroup)? else { return Ok(()) };
        self.programs = attach::load(&self.pins, self.capacity, &constants)?;
        self.constants = constants;
        attach::attach(&mut self.programs, &self.pins, &self.cgroup)?;
        tracing::warn!("an excluded cgroup was removed and made again: it is excluded again");
        if self.switches.log != LogLevel::Off {
            tracing::warn!("the programs were loaded anew: their log goes on with the next start of the agent");
        }
        Ok(())
    }

    /// The programs' diagnostics.
    pub fn diagnostics(&mut self) -> Result<Logger> {
        log::open(&mut self.programs)
    }

    fn attach(&mut self) -> Result<()> {
        self.follow_cgroup()?;
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
async fn lock(find: impl Fn() -> Pins, options: &Options) -> Result<Lock> {
    loop {
        find().create_root(options.mounting)?;
        // An agent that ends with `--cleanup-on-exit`, or a cleanup, removes the directory, at any moment.
        match lock_once(&find(), options.waiting).await {
            Ok(lock) if lock.is_in_force()? => return Ok(lock),
            Err(error) if !error.is::<Missing>() => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
}

async fn lock_once(pins: &Pins, waiting: Waiting) -> Result<Lock> {
    if let Some(lock) = pins.lock()? {
        return Ok(lock);
    }
    let holder = format!("another agent{} writes to {}", record::holder(pins), pins.root().display());
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
        record::record_start(&mut earlier)?;
    }
    let pins = match load::difference(&in_use, options.capacity)? {
        None => in_use,
        Some(difference) => {
            tracing::info!("{difference}: a new set of maps is made");
            in_use.next()
        }
    };
    for error in pins.others()?.iter().filter(|other| !other.has_links()).flat_map(removal::remove_set) {
        tracing::warn!("{error:#}");
    }
    Ok(pins)
}
