//! The agent's objects in the kernel: the lock on the pins, the maps and the programs.
//!
//! An agent adopts the maps of an earlier agent if their layout and sizes fit. Otherwise it makes a new set of maps. The
//! programs of the earlier set serve until the new maps are filled. Then the agent takes over the links one by one, and removes
//! the earlier set. An agent whose set has too little room does the same with a larger copy of its own set.

use anyhow::{Context, Result, bail};
use aya::Ebpf;

use super::{DeviceSelection, Options, Waiting, client_ports, record};
use crate::{
    datapath::{
        attach::{self, Attached},
        cgroup::Cgroup,
        devices,
        load::{self, Constants, LogLevel, Switches, close_maps, difference},
        log::{self, Logger},
        removal,
    },
    kernel::{exhaustion::is_exhausted, privileges},
    maps::{
        Capacity, Fullness, Room,
        bpf::BpfMaps,
        grace::Grace,
        pin::{Lock, Missing, Pins},
    },
};

/// The lock, the maps and the programs of this agent.
pub struct Datapath {
    /// The pins of the maps and links of this agent's set.
    pub pins: Pins,
    pub maps: BpfMaps,
    /// The loaded programs.
    pub programs: Ebpf,
    cgroup: Cgroup,
    switches: Switches,
    capacity: Capacity,
    /// The largest capacity that the maps may grow to.
    limit: Capacity,
    /// The constants that the programs were loaded with.
    constants: Constants,
    /// The devices that get programs; without any, those programs are not loaded.
    devices: DeviceSelection,
    /// Whether this agent's programs are attached to the cgroup: false while the programs of another set of maps serve.
    is_attached: bool,
    /// The sets of maps whose programs were replaced, until they are removed.
    others: Vec<Pins>,
    /// The failure to keep the programs attached that was logged last, so that it is logged once.
    logged_failure: Option<String>,
    /// The mark that the tables have agreed with the objects since the start of this agent. It ends before the lock does.
    synced: Option<Lock>,
    _lock: Lock,
}

impl Datapath {
    /// Takes the lock, chooses the maps, and loads the programs. Attaches the programs, unless the programs of another set
    /// of maps serve.
    pub async fn start(options: &Options) -> Result<Self> {
        let find = || Pins::of_version(&options.bpffs, options.abi);
        privileges::check()?;
        if options.devices.outside != DeviceSelection::None {
            client_ports::check(options.client_ports)?;
        }
        let cgroup = Cgroup::open(options.cgroup.as_deref())?;
        // A wrong cgroup is reported before the wait for the lock.
        Constants::new(&options.switches, &cgroup, options.capacity)?;
        let lock = lock(find, options).await?;
        let (pins, capacity) = choose(find(), options)?;
        pins.create()?;
        let constants = Constants::new(&options.switches, &cgroup, capacity)?;
        let programs = load(&pins, capacity, &constants, &options.devices.outside)?;
        let is_replacing = pins.others()?.iter().any(Pins::has_links);
        let mut datapath = Self {
            maps: BpfMaps::open(&pins)?,
            pins,
            programs,
            cgroup,
            switches: options.switches.clone(),
            capacity,
            limit: options.capacity,
            constants,
            devices: options.devices.outside.clone(),
            is_attached: false,
            others: Vec::new(),
            logged_failure: None,
            synced: None,
            _lock: lock,
        };
        record::record_start(&mut datapath.maps)?;
        // Waits for a grace period, because programs may still read entries that an earlier agent retired just before its end.
        Grace::open(&datapath.pins)?.wait()?;
        if is_replacing {
            tracing::info!("the programs of the earlier set of maps serve until the new maps are filled");
        } else {
            datapath.attach()?;
        }
        Ok(datapath)
    }

    /// Replaces the programs of another set of maps at the cgroup by this agent's programs. Does nothing if this agent's
    /// programs are attached. The tables must be filled.
    pub fn take_over(&mut self) -> Result<()> {
        if self.is_attached {
            return Ok(());
        }
        self.others = self.pins.others()?;
        self.attach()
    }

    /// The capacity of the larger set that should replace this set: see [`Capacity::grown`]. `None` if it may not grow.
    pub fn larger(&self, fullness: &[Fullness], is_lacking: impl Fn(Room) -> bool) -> Option<Capacity> {
        self.capacity.grown(fullness, is_lacking, self.limit)
    }

    /// Makes a set of this capacity, with the entries of this set, and continues with it. The programs of this set serve until
    /// [`Self::take_over`]. After a failure, this set stays in use, and the capacity becomes the limit.
    pub fn grow(&mut self, capacity: Capacity) -> Result<()> {
        let larger = self.pins.next();
        match self.copy_to(&larger, capacity) {
            Ok((programs, maps)) => {
                (self.pins, self.programs, self.maps, self.capacity) = (larger, programs, maps, capacity);
                (self.is_attached, self.synced) = (false, None);
                self.report_end_of_log();
                Ok(())
            }
            Err(error) => {
                self.limit = self.capacity;
                remove([&larger]);
                Err(error)
            }
        }
    }

    fn copy_to(&self, larger: &Pins, capacity: Capacity) -> Result<(Ebpf, BpfMaps)> {
        larger.create()?;
        let programs = load(larger, capacity, &self.constants, &self.devices)?;
        load::copy_maps(&self.pins, larger)?;
        Ok((programs, BpfMaps::open(larger)?))
    }

    /// Marks the tables as synced, for `portmap status`.
    pub fn mark_synced(&mut self) -> Result<()> {
        if self.synced.is_none() {
            self.synced = Some(self.pins.mark_synced()?);
        }
        Ok(())
    }

    /// Removes the other sets of maps, after [`Self::take_over`] and after their programs at network devices were replaced.
    pub fn remove_others(&mut self) {
        remove(&std::mem::take(&mut self.others));
    }

    /// Attaches this agent's programs again if another program detached them, or if their cgroup was removed and created
    /// again. Loads them again if an excluded cgroup was.
    ///
    /// Returns false if the check fails, or if the programs cannot be attached or loaded again. Returns true, without a check,
    /// while the programs of another set of maps serve. Also returns true after a failure for lack of descriptors or memory.
    pub fn keep_attached(&mut self) -> bool {
        if !self.is_attached {
            return true;
        }
        let Err(error) = self.attach_again() else {
            self.logged_failure = None;
            return true;
        };
        let failure = format!("{error:#}");
        if self.logged_failure.as_ref() != Some(&failure) {
            tracing::error!("failed to keep the programs attached: {failure}; trying again each second");
            self.logged_failure = Some(failure);
        }
        // A shortage of descriptors or memory detaches no program, and the next check tries again.
        is_exhausted(&error)
    }

    fn attach_again(&mut self) -> Result<()> {
        if self.follow_cgroup()? {
            self.attach()?;
            tracing::warn!(
                "the cgroup {} was removed and created again: attached the programs to it",
                self.cgroup.path.display()
            );
        }
        let missing = attach::detached(&self.pins, &self.cgroup)?;
        if !missing.is_empty() {
            self.attach().with_context(|| format!("another program detached {}", missing.join(", ")))?;
            tracing::warn!("another program detached {}: attached again", missing.join(", "));
        }
        self.follow_excluded()
    }

    /// Opens the cgroup again if its path leads to another directory now. Returns whether the directory is another one.
    fn follow_cgroup(&mut self) -> Result<bool> {
        let Some(successor) = self.cgroup.successor()? else { return Ok(false) };
        self.cgroup = successor;
        Ok(true)
    }

    /// Loads the programs again if an excluded cgroup was removed and created again: the cgroup's id is a constant of the
    /// programs.
    fn follow_excluded(&mut self) -> Result<()> {
        let Some(constants) = self.constants.successor(&self.switches, &self.cgroup)? else { return Ok(()) };
        self.programs = load(&self.pins, self.capacity, &constants, &self.devices)?;
        self.constants = constants;
        attach::attach(&mut self.programs, &self.pins, &self.cgroup)?;
        tracing::warn!("an excluded cgroup was removed and created again: it is excluded again");
        self.report_end_of_log();
        Ok(())
    }

    /// Logs the end of the programs' log, after they were loaded again.
    fn report_end_of_log(&self) {
        if self.switches.log != LogLevel::Off {
            tracing::warn!("the programs were loaded again, and their log has ended; restart the agent for --datapath-log");
        }
    }

    /// Opens the log of the BPF programs.
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

/// Loads the programs; those for network devices only if any device may get them. Keeps few descriptors open.
fn load(pins: &Pins, capacity: Capacity, constants: &Constants, devices: &DeviceSelection) -> Result<Ebpf> {
    let mut programs = attach::load(pins, capacity, constants)?;
    if *devices != DeviceSelection::None {
        devices::load(&mut programs)?;
    }
    close_maps(&mut programs);
    Ok(programs)
}

/// Creates the directory of the pins, and takes the lock that allows one agent to write the tables. Repeats both if the
/// directory is removed meanwhile.
async fn lock(find: impl Fn() -> Pins, options: &Options) -> Result<Lock> {
    loop {
        find().create_root(options.mounting)?;
        // An agent with `--cleanup-on-exit`, or a cleanup, may remove the directory at any moment.
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

/// The capacity for the agent that finds this set. Logs a difference of FLOWS from `--max-flows`.
fn continued(pins: &Pins, limit: Capacity) -> Result<Capacity> {
    let kept = load::continued(pins, limit)?;
    if kept.flows != limit.flows {
        tracing::warn!(
            "FLOWS keeps its size of {} entries instead of {} (--max-flows): a new map would end the connections of clients \
             outside the node; to change the size all the same, stop the agent, run portmap cleanup, and start the agent again",
            kept.flows,
            limit.flows
        );
    }
    Ok(kept)
}

/// Chooses the set of maps, and its capacity: the set in use if its layout and sizes fit, else a new set. Removes the other sets
/// without links: such a set remains, for example, from a start that did not complete.
fn choose(in_use: Pins, options: &Options) -> Result<(Pins, Capacity)> {
    if let Ok(mut earlier) = BpfMaps::open(&in_use) {
        // Recorded in this set, too: `portmap status` reads it until another set is filled.
        record::record_start(&mut earlier)?;
    }
    let capacity = continued(&in_use, options.capacity)?;
    let pins = match difference(&in_use, capacity)? {
        None => in_use,
        Some(difference) => {
            tracing::info!("{difference}: creating a new set of maps");
            in_use.next()
        }
    };
    remove(pins.others()?.iter().filter(|other| !other.has_links()));
    Ok((pins, capacity))
}

/// Removes sets of maps, and logs each object that stays.
fn remove<'a>(sets: impl IntoIterator<Item = &'a Pins>) {
    for error in sets.into_iter().flat_map(removal::remove_set) {
        tracing::warn!("{error:#}");
    }
}
