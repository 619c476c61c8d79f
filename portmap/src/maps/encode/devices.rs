//! Values of DEVICES.

use std::net::IpAddr;

use portmap_common::{BARE, Device, PODS};

use super::IpBytes;
use crate::{
    kernel::devices::LinkLayer,
    maps::devices::{DeviceClients, DeviceEntry},
    model::PerFamily,
};

/// Encodes a value of DEVICES.
pub(in crate::maps) fn device(entry: &DeviceEntry) -> Device {
    let clients = match entry.clients {
        DeviceClients::Outside => 0,
        DeviceClients::Pods => PODS,
    };
    let link_layer = match entry.link_layer {
        LinkLayer::Ethernet => 0,
        LinkLayer::Bare => BARE,
    };
    let flags = clients | link_layer;
    Device { v4: bytes(entry.addresses.v4), v6: bytes(entry.addresses.v6), flags }
}

/// Decodes a value of DEVICES.
pub(in crate::maps) fn device_of(device: &Device) -> DeviceEntry {
    let Device { v4, v6, flags } = *device;
    let clients = if flags & PODS == 0 { DeviceClients::Outside } else { DeviceClients::Pods };
    let link_layer = if flags & BARE == 0 { LinkLayer::Ethernet } else { LinkLayer::Bare };
    DeviceEntry { addresses: PerFamily { v4: address_of(v4), v6: address_of(v6) }, clients, link_layer }
}

/// An address; zeroes without one.
fn bytes<A: IpBytes>(address: Option<IpAddr>) -> A {
    address.and_then(A::from_ip).unwrap_or_default()
}

fn address_of(bytes: impl IpBytes) -> Option<IpAddr> {
    Some(bytes.to_ip()).filter(|address| !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_the_same_after_encoding_and_decoding() {
        let v6 = Some("2001:db8::1".parse().expect("an address"));
        for (clients, link_layer) in [
            (DeviceClients::Outside, LinkLayer::Ethernet),
            (DeviceClients::Pods, LinkLayer::Ethernet),
            (DeviceClients::Outside, LinkLayer::Bare),
        ] {
            for addresses in [PerFamily { v4: None, v6 }, PerFamily { v4: Some([192, 0, 2, 1].into()), v6: None }] {
                let entry = DeviceEntry { addresses, clients, link_layer };
                assert_eq!(device_of(&device(&entry)), entry);
            }
        }
    }
}
