//! The packets of the measurement, as Ethernet frames.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use etherparse::PacketBuilder;
use portmap_harness::listen::Protocol;

/// The source and the destination of a packet, of one IP family.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    source: SocketAddr,
    destination: SocketAddr,
}

impl Ends {
    /// A packet from `source` to `destination`.
    pub fn between(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { source, destination }
    }
}

/// The transport header of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// The first packet of a TCP connection.
    Syn,
    /// The answer to the first packet of a TCP connection.
    SynAck,
    /// A later packet of a TCP connection.
    Ack,
    /// A UDP datagram.
    Datagram,
}

impl Kind {
    /// A packet of an established flow.
    pub fn later(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Ack,
            Protocol::Udp => Self::Datagram,
        }
    }
}

/// The data of all packets.
const DATA: [u8; 64] = [1; 64];

/// The Ethernet addresses of all packets.
const LINK: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// An Ethernet frame with valid checksums.
pub fn frame(kind: Kind, ends: Ends) -> Result<Vec<u8>> {
    let Ends { source, destination } = ends;
    let link = PacketBuilder::ethernet2(LINK[0], LINK[1]);
    let network = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => link.ipv4(source.octets(), destination.octets(), 64),
        (IpAddr::V6(source), IpAddr::V6(destination)) => link.ipv6(source.octets(), destination.octets(), 64),
        _ => bail!("the ends of a packet are of different IP families"),
    };
    let mut frame = Vec::new();
    let written = match kind {
        Kind::Datagram => network.udp(source.port(), destination.port()).write(&mut frame, &DATA),
        Kind::Syn => network.tcp(source.port(), destination.port(), 1, 64_000).syn().write(&mut frame, &[]),
        Kind::SynAck => network.tcp(source.port(), destination.port(), 1, 64_000).syn().ack(2).write(&mut frame, &[]),
        Kind::Ack => network.tcp(source.port(), destination.port(), 2, 64_000).ack(2).write(&mut frame, &DATA),
    };
    written.context("failed to build a packet")?;
    Ok(frame)
}

/// An Ethernet frame without an IP packet, which the programs pass at once. It has the type of ARP.
pub fn without_ip() -> Vec<u8> {
    LINK.concat().into_iter().chain([0x08, 0x06]).chain(DATA).collect()
}
