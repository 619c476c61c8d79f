//! Packets of clients outside the node: translated where a device receives and sends them.

mod packet;
mod tables;

pub use packet::{ETHERNET, Packet};

/// The return value of a program that lets the next program see the packet (`TC_ACT_UNSPEC`, `TCX_NEXT`).
const NEXT: i32 = -1;

/// A packet that a device has received.
#[inline(always)]
pub fn ingress<const LINK: usize>(packet: &Packet<'_, LINK>) -> i32 {
    let Some(_device) = tables::device(packet.device()) else { return NEXT };
    NEXT
}

/// A packet that a device is about to send.
#[inline(always)]
pub fn egress<const LINK: usize>(packet: &Packet<'_, LINK>) -> i32 {
    let Some(_device) = tables::device(packet.device()) else { return NEXT };
    NEXT
}
