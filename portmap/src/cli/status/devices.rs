//! The network devices in the output of `portmap status`: those of the map DEVICES, each with the programs that are attached.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Result;
use comfy_table::Table;
use portmap::{
    datapath::devices::{AttachMode, attachment},
    kernel::{devices::names, namespaces},
    maps::{
        devices::{DeviceClients, DeviceEntry, DeviceMap},
        pin::Pins,
    },
};
use portmap_common::State;
use serde::Serialize;

use super::{Check, output};

/// A network device. Its JSON and YAML have these fields in camelCase.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceState {
    /// The name; none if the device does not exist any more, or if this is not the agent's network namespace.
    name: Option<String>,
    /// The interface index.
    index: u32,
    /// How the programs are attached: `tcx` or `clsact`; none if one of them is not attached. Filters at clsact are seen only in
    /// the agent's network namespace.
    attached: Option<String>,
    /// The clients whose packets the device receives: `outside` or `pods`.
    clients: &'static str,
    /// The node's addresses on the device, behind which clients are hidden.
    addresses: Vec<IpAddr>,
}

/// Reads DEVICES, and the programs that are attached to the devices. In another network namespace than the agent's, the
/// devices have no names here.
pub fn read(pins: &Pins, state: &State) -> Result<Vec<DeviceState>> {
    let entries = DeviceMap::open(pins)?.entries()?;
    let is_here = namespaces::own()?.inode() == state.network;
    let mut names = if is_here { names()? } else { BTreeMap::new() };
    let state = |(index, entry): (u32, DeviceEntry)| {
        let clients = match entry.clients {
            DeviceClients::Outside => "outside",
            DeviceClients::Pods => "pods",
        };
        Ok(DeviceState {
            name: names.remove(&index),
            index,
            attached: attachment(pins, index)?.filter(|mode| is_here || *mode == AttachMode::Tcx).map(|mode| mode.to_string()),
            clients,
            addresses: [entry.addresses.v4, entry.addresses.v6].into_iter().flatten().collect(),
        })
    };
    entries.into_iter().map(state).collect()
}

/// Checks that all devices have their programs. Ignores devices without a name.
pub fn check(devices: &[DeviceState]) -> Check {
    let is_lost = |device: &&DeviceState| device.name.is_some() && device.attached.is_none();
    let names = |devices: &[&DeviceState]| devices.iter().map(|device| device.label()).collect::<Vec<_>>().join(", ");
    let (lost, attached): (Vec<&DeviceState>, Vec<_>) = devices.iter().partition(is_lost);
    let text = match (lost.as_slice(), attached.as_slice()) {
        ([], []) => "no network device is chosen: clients outside the node are not served".to_owned(),
        ([], attached) => format!("{} have their programs", names(attached)),
        (lost, _) => format!(
            "the programs of {} are not attached; a running agent attaches them within a second or logs the reason",
            names(lost)
        ),
    };
    Check { name: "devices", fine: lost.is_empty(), text }
}

/// The devices as a table.
pub fn table(devices: &[DeviceState]) -> Table {
    let mut table = output::new_table(&["DEVICE", "ATTACHED", "CLIENTS", "ADDRESSES"]);
    for device in devices {
        let addresses: Vec<String> = device.addresses.iter().map(ToString::to_string).collect();
        let addresses = if addresses.is_empty() { "-".to_owned() } else { addresses.join(", ") };
        let attached = device.attached.clone().unwrap_or_else(|| "no".to_owned());
        table.add_row([device.label(), attached, device.clients.to_owned(), addresses]);
    }
    table
}

impl DeviceState {
    fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("(index {})", self.index))
    }
}
