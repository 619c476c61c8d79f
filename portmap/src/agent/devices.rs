//! The network devices at which packets of clients outside the node are translated: follows the node's devices, attaches the
//! programs, and keeps DEVICES.
//!
//! [`choice`] chooses the devices, and `datapath::devices` attaches the programs. No program is attached before the tables are
//! filled.

mod choice;
mod selection;

use std::{
    collections::{BTreeMap, BTreeSet},
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
        devices::{Network, read},
        exhaustion::is_exhausted,
        notifications::Notifications,
        routes,
    },
    maps::devices::DeviceMap,
    model::PerFamily,
};
use choice::{Choice, choose};
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

    /// Attaches programs again that another process detached, or that failed before. Returns whether all devices have their
    /// programs.
    pub fn keep(&mut self, datapath: &Datapath) -> bool {
        let Some(choice) = &self.choice else { return true };
        let mut lost = Vec::new();
        for device in choice.devices.values() {
            match devices::attachment(&datapath.pins, device.target.index) {
                Ok(found) if found == Some(self.mode) => {}
                Ok(_) => lost.push(device.target.clone()),
                // A lack of descriptors does not mean that a program is detached.
                Err(error) => tracing::debug!("{error:#}"),
            }
        }
        for device in lost.iter().filter(|device| !self.failed.contains_key(&device.index)) {
            tracing::warn!("another program detached the programs from {}: attaching them again", device.name);
        }
        self.failed.retain(|index, _| lost.iter().any(|device| device.index == *index));
        self.attach(datapath, &lost).is_none() && self.failed.is_empty()
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
        let mut shortage = None;
        for target in targets {
            self.failed.remove(&target.index);
        }
        for (index, error) in devices::attach(&datapath.programs, &datapath.pins, self.mode, targets) {
            let text = format!("{error:#}");
            tracing::error!("{text}; trying again each second");
            self.failed.insert(index, text);
            if is_exhausted(&error) {
                shortage = Some(error);
            }
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
    }
}
