//! The arguments of `portmap run` about network devices.

use anyhow::{Result, ensure};
use clap::Args;
use portmap::{
    agent::{DeviceOptions, DeviceSelection, NamePattern},
    datapath::devices::DeviceAttach,
};

#[derive(Debug, Args)]
pub struct DeviceArguments {
    /// Network devices that lead to clients outside the node: names, beginnings of names (eth*), or none; repeatable [default:
    /// the devices with an address of the Node, a default route, or a route to other nodes]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = selected)]
    devices: Vec<Selected>,
    /// Network devices that lead to pods of this node whose sockets are not the node's, such as virtual machines: names, or
    /// beginnings of names (tap*); repeatable
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pod_devices: Vec<NamePattern>,
    /// How programs are attached to network devices
    #[arg(long, value_name = "WAY", value_enum, default_value_t)]
    pub device_attach: DeviceAttach,
}

/// An element of `--devices`; `None` for `none`.
#[derive(Clone, Debug)]
struct Selected(Option<NamePattern>);

fn selected(text: &str) -> Result<Selected, String> {
    Ok(Selected(if text == "none" { None } else { Some(text.parse()?) }))
}

impl DeviceArguments {
    /// The options about devices. Fails if `none` is given together with devices.
    pub fn options(&self) -> Result<DeviceOptions> {
        let named: Option<Vec<NamePattern>> = self.devices.iter().map(|selected| selected.0.clone()).collect();
        let outside = match named {
            None => {
                ensure!(
                    self.devices.len() == 1 && self.pod_devices.is_empty(),
                    "--devices none excludes all devices, also those of --pod-devices; give none alone"
                );
                DeviceSelection::None
            }
            Some(named) if named.is_empty() => DeviceSelection::Automatic,
            Some(named) => DeviceSelection::Named(named),
        };
        Ok(DeviceOptions { outside, pods: self.pod_devices.clone() })
    }
}
