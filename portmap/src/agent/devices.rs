//! The network devices at which packets of clients outside the node are translated: follows the node's devices, attaches the
//! programs, and keeps DEVICES.
//!
//! [`choice`] chooses the devices, and `datapath::devices` attaches the programs. No program is attached before the tables are
//! filled.

mod choice;
mod selection;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::datapath::Datapath;
use crate::{
    datapath::devices::{self, AttachMode, DeviceAttach, Target},
    kernel::{
        devices::{Network, names, read},
        exhaustion::{self, is_exhausted},
        notifications::Notifications,
        routes,
    },
    maps::devices::DeviceMap,
    model::PerFamily,
};
use choice::{Choice, Chosen, choose};
pub use selection::{DeviceOptions, DeviceSelection, NamePattern};

/// The shortest time between two lists of devices, addresses and routes.
const PAUSE: Duration = Duration::from_millis(200);

/// The devices of the node, and the programs at them.
pub struct Devices {
    options: DeviceOptions,
    mode: AttachMode,
    changes: Notifications,
    network: Network,
    listing: Option<JoinHandle<Result<Network>>>,
    /// Whether the devices may have changed since the last list began.
    is_due: bool,
    listed: Instant,
    /// Whether the list is newer than `choice`.
    is_new: bool,
    /// The Node's addresses that `choice` was made with.
    node: PerFamily<Option<IpAddr>>,
    /// The choice that the programs and DEVICES were brought to last; none before the tables were filled.
    choice: Option<Choice>,
    /// The devices without all their programs, each with the failure that was logged.
    failed: BTreeMap<u32, String>,
    /// The failure to detach programs or to write DEVICES that was logged last.
    failure: Option<String>,
}

impl Devices {
    /// Lists the devices. Attaches nothing.
    pub fn start(options: &DeviceOptions, attach: DeviceAttach) -> Result<Self> {
        // Before the list, so that no change is missed between the two.
        let changes = Notifications::of(routes::changes()?)?;
        Ok(Self {
            options: options.clone(),
            mode: attach.mode()?,
            changes,
            network: read()?,
            listing: None,
            is_due: false,
            listed: Instant::now(),
            is_new: false,
            node: PerFamily::default(),
            choice: None,
            failed: BTreeMap::new(),
            failure: None,
        })
    }

    /// Returns after the devices have been listed again, because of a change of links, addresses or routes.
    pub async fn changed(&mut self) -> Result<()> {
        loop {
            if let Some(listing) = &mut self.listing {
                let listed = listing.await.context("the list of network devices crashed");
                self.listing = None;
                self.network = listed.flatten().inspect_err(|_| self.is_due = true)?;
                self.is_new = true;
                return Ok(());
            }
            tokio::select! {
                result = self.changes.next() => {
                    self.is_due = true;
                    result?;
                }
                () = sleep_until(self.listed + PAUSE), if self.is_due => {
                    (self.is_due, self.listed) = (false, Instant::now());
                    self.listing = Some(tokio::task::spawn_blocking(read));
                }
            }
        }
    }

    /// Brings the programs and DEVICES to the devices that should have them. `node` has the Node's address of each family. The
    /// tables must be filled.
    ///
    /// A device that fails is logged and tried again by [`Self::keep`]. Fails only for lack of descriptors or memory.
    pub fn follow(&mut self, datapath: &Datapath, node: &PerFamily<Option<IpAddr>>) -> Result<()> {
        // The Node object may lack its addresses for a moment. Its device keeps the programs, because flows pass through it.
        let node = &PerFamily::of(|family| node.get(family).or(*self.node.get(family)));
        let is_current = self.choice.is_some() && !self.is_new && self.node == *node;
        if is_current && self.failure.is_none() {
            return Ok(());
        }
        (self.is_new, self.node) = (false, *node);
        let choice = choose(&self.options, &self.network, node);
        if self.choice.as_ref() == Some(&choice) && self.failure.is_none() {
            return Ok(());
        }
        self.log(&choice);
        let known = self.choice.take().unwrap_or_default();
        let new = choice.devices.iter().filter(|(index, _)| !known.devices.contains_key(index));
        let new: Vec<Target> = new.map(|(_, device)| device.target.clone()).collect();
        let applied = self.apply(datapath, &choice, &new);
        self.failed.retain(|index, _| choice.devices.contains_key(index));
        self.choice = Some(choice);
        self.note(applied)
    }

    /// Makes [`Self::follow`] attach the programs again, because they were loaded again.
    pub fn forget_programs(&mut self) {
        self.choice = None;
    }

    /// The number of devices that should have programs, and of those without their programs.
    pub fn counts(&self) -> (usize, usize) {
        (self.choice.as_ref().map_or(0, |choice| choice.devices.len()), self.failed.len())
    }

    /// The number of devices that the user named and that do not exist.
    pub fn absent(&self) -> usize {
        self.choice.as_ref().map_or(0, |choice| choice.absent.len())
    }

    /// Attaches programs again that another process detached, or that failed before. Returns whether all devices have their
    /// programs.
    pub fn keep(&mut self, datapath: &Datapath) -> bool {
        let Some(choice) = &self.choice else { return true };
        let mut lost = Vec::new();
        for Chosen { target, .. } in choice.devices.values() {
            match devices::is_attached(&datapath.pins, self.mode, target.index) {
                Ok(true) => drop(self.failed.remove(&target.index)),
                Ok(false) => lost.push(target.clone()),
                // A lack of descriptors does not mean that a program is detached.
                Err(error) => exhaustion::report(&error),
            }
        }
        // A device that has just vanished loses its programs, too. The next list does not have it.
        if !lost.is_empty()
            && let Ok(present) = names()
        {
            lost.retain(|target| present.contains_key(&target.index));
        }
        for target in lost.iter().filter(|target| !self.failed.contains_key(&target.index)) {
            tracing::warn!("the programs were detached from {}: attaching them again", target.name);
        }
        let shortage = self.attach(datapath, &lost);
        shortage.is_none() && self.failed.is_empty()
    }

    /// Writes DEVICES, attaches the programs to the devices `new`, and detaches them from the devices that are not chosen.
    fn apply(&mut self, datapath: &Datapath, choice: &Choice, new: &[Target]) -> Result<()> {
        let mut map = DeviceMap::open(&datapath.pins)?;
        let present = map.entries()?;
        for (index, device) in &choice.devices {
            if present.get(index) != Some(&device.entry) {
                map.set(*index, &device.entry)?;
            }
        }
        let shortage = self.attach(datapath, new);
        let kept: BTreeSet<u32> = choice.devices.keys().copied().collect();
        devices::detach_others(&datapath.pins, self.mode, &kept)?;
        for index in present.keys().filter(|index| !kept.contains(index)) {
            map.remove(*index)?;
        }
        shortage.map_or(Ok(()), Err)
    }

    /// Attaches the programs to devices, and logs each new failure. Returns a failure for lack of descriptors or memory.
    fn attach(&mut self, datapath: &Datapath, targets: &[Target]) -> Option<anyhow::Error> {
        let mut failures = devices::attach(&datapath.programs, &datapath.pins, self.mode, targets);
        let mut shortage = None;
        for Target { index, .. } in targets {
            let before = self.failed.remove(index);
            let Some(error) = failures.remove(index) else { continue };
            // The device has vanished, and the next list will not have it.
            if is_gone(&error) {
                continue;
            }
            let text = format!("{error:#}");
            if before.as_ref() != Some(&text) {
                tracing::error!("{text}; trying again each second");
            }
            self.failed.insert(*index, text);
            shortage = Some(error).filter(is_exhausted).or(shortage);
        }
        shortage
    }

    /// Logs a new failure of [`Self::apply`], and keeps it, so that the next call tries again. Returns a failure for lack of
    /// descriptors or memory.
    fn note(&mut self, applied: Result<()>) -> Result<()> {
        let Err(error) = applied else {
            self.failure = None;
            return Ok(());
        };
        let text = format!("{error:#}");
        if self.failure.as_ref() != Some(&text) {
            tracing::error!("failed to keep the devices for clients outside the node: {text}; trying again");
        }
        self.failure = Some(text);
        if is_exhausted(&error) { Err(error) } else { Ok(()) }
    }

    /// Logs a change of the chosen devices, and of the absent ones.
    fn log(&self, choice: &Choice) {
        let before = self.choice.as_ref();
        let names = |choice: &Choice| choice.devices.values().map(|device| device.target.name.clone()).collect::<Vec<_>>();
        if before.is_none_or(|before| names(before) != names(choice)) {
            match names(choice).as_slice() {
                [] if self.options.outside == DeviceSelection::None => {}
                [] => tracing::warn!(
                    "no network device leads to clients outside the node, so none of them is served; name devices with --devices"
                ),
                names => tracing::info!("serving clients outside the node on {}", names.join(", ")),
            }
        }
        if !choice.absent.is_empty() && before.is_none_or(|before| before.absent != choice.absent) {
            tracing::warn!("there is no network device {}; waiting for it", choice.absent.join(", "));
        }
        if !choice.left_out.is_empty() && before.is_none_or(|before| before.left_out != choice.left_out) {
            let names = choice.left_out.join(", ");
            tracing::warn!("no clients are served on {names}: the link-layer header of its packets is not supported");
        }
    }
}

/// Whether an error says that a device does not exist any more.
fn is_gone(error: &anyhow::Error) -> bool {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.into_iter().any(|cause| cause.raw_os_error() == Some(libc::ENODEV))
}
