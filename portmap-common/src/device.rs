//! The network devices whose packets are translated (`DEVICES`).

use crate::{V4, V6, layout};

/// A flag of [`Device`]: the device leads to pods whose sockets are not the node's, such as virtual machines. Their packets
/// get the backends for clients on this node.
pub const PODS: u32 = 1;

/// A flag of [`Device`]: the device has no link-layer header, so packets cannot be redirected to it from an Ethernet device.
pub const BARE: u32 = 2;

/// A value of `DEVICES` under an interface index. Packets of a device without an entry open no flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Device {
    /// The node's IPv4 address on the device; zeroes without one. Clients are hidden behind it where necessary.
    pub v4: V4,
    /// The node's IPv6 address on the device; zeroes without one.
    pub v6: V6,
    /// Bits: [`PODS`], [`BARE`].
    pub flags: u32,
}

layout!(Device, 24);
