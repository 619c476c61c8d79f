//! The frames of a pod's network interface: tests send some of their own, and inspect those that arrive.

use anyhow::{Result, ensure};

use crate::worker::Worker;
use crate::world::Pod;

/// A running `portmap-pod wire` on the interface `eth0` of a pod; dropping this kills the process.
pub struct Wire(Worker);

impl Wire {
    /// Begins to record the frames of a pod.
    pub fn open(pod: &Pod) -> Result<Self> {
        Worker::start(pod, ["wire".to_owned(), "eth0".to_owned()]).map(Self)
    }

    /// Sends a frame from the pod's interface. Returns when the kernel has it.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        let reply = self.0.request(&serde_json::to_string(frame)?)?;
        ensure!(reply == "sent", "portmap-pod wire failed to send a frame");
        Ok(())
    }

    /// All frames since [`Self::open`], sent and received.
    pub fn finish(mut self) -> Result<Vec<Vec<u8>>> {
        self.0.finish()
    }
}

/// An Ethernet frame with an IP packet. Its source address belongs to no host.
#[must_use]
pub fn frame(destination: [u8; 6], packet: &[u8]) -> Vec<u8> {
    const SOURCE: [u8; 6] = [2, 0, 0, 0, 1, 0];
    let is_ipv6 = packet.first().is_some_and(|version| version >> 4 == 6);
    let kind: [u8; 2] = if is_ipv6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    destination.into_iter().chain(SOURCE).chain(kind).chain(packet.iter().copied()).collect()
}

/// The IP packet in an Ethernet frame; `None` for other frames.
#[must_use]
pub fn packet(frame: &[u8]) -> Option<&[u8]> {
    let (header, packet) = frame.split_at_checked(14)?;
    (header.ends_with(&[0x08, 0x00]) || header.ends_with(&[0x86, 0xdd])).then_some(packet)
}
