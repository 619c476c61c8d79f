//! Access to a packet.

use aya_ebpf::programs::TcContext;

/// Length of an Ethernet header in bytes.
pub const ETHERNET: usize = 14;

/// A packet at a hook of a device. `LINK` is the length of the link-layer header in bytes.
pub struct Packet<'a, const LINK: usize> {
    context: &'a TcContext,
}

impl<'a, const LINK: usize> Packet<'a, LINK> {
    /// The packet of a hook's context.
    #[inline(always)]
    pub fn new(context: &'a TcContext) -> Self {
        Self { context }
    }

    /// The interface index of the device.
    #[inline(always)]
    pub fn device(&self) -> u32 {
        // SAFETY: the kernel gives the program a valid context.
        unsafe { (*self.context.skb.skb).ifindex }
    }
}
