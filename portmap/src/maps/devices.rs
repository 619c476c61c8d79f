//! The map DEVICES: the network devices whose packets are translated.
//!
//! `agent::devices` chooses the devices. Not part of the plan: the map depends on the devices of the node, and of the objects
//! only on the Node's addresses.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData, MapError};
use portmap_common::Device;

use super::{bpf::open, encode};
use crate::{kernel::devices::LinkLayer, maps::pin::Pins, model::PerFamily};

/// A value of DEVICES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceEntry {
    /// The node's address of each family on the device. Clients are hidden behind it where necessary.
    pub addresses: PerFamily<Option<IpAddr>>,
    /// The clients whose packets the device receives.
    pub clients: DeviceClients,
    /// The header before the IP header of the device's packets.
    pub link_layer: LinkLayer,
}

/// The clients whose packets a device receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceClients {
    /// Other hosts, and pods of other nodes.
    Outside,
    /// Pods of this node whose sockets are not the node's, such as virtual machines.
    Pods,
}

/// The map DEVICES.
pub struct DeviceMap(HashMap<MapData, u32, Device>);

impl DeviceMap {
    /// Opens the pinned map.
    pub fn open(pins: &Pins) -> Result<Self> {
        Ok(Self(HashMap::try_from(Map::HashMap(open(pins, "DEVICES")?))?))
    }

    /// The entries, by interface index.
    pub fn entries(&self) -> Result<BTreeMap<u32, DeviceEntry>> {
        let entries = self.0.iter().map(|element| element.map(|(index, device)| (index, encode::device_of(&device))));
        entries.collect::<Result<_, _>>().context("failed to read DEVICES")
    }

    /// Inserts or replaces the entry of a device.
    pub fn set(&mut self, index: u32, entry: &DeviceEntry) -> Result<()> {
        self.0.insert(index, encode::device(entry), 0).context("failed to write DEVICES")
    }

    /// Removes the entries of all devices. Then no device opens a flow.
    pub fn clear(&mut self) -> Result<()> {
        self.entries()?.into_keys().try_for_each(|index| self.remove(index))
    }

    /// Removes the entry of a device, if there is one.
    pub fn remove(&mut self, index: u32) -> Result<()> {
        match self.0.remove(&index) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(error).context("failed to write DEVICES"),
        }
    }
}
