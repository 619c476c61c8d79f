//! Builds packets from their headers.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use etherparse::{IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};

/// The hop limit of the packets.
pub const HOPS: u8 = 20;

/// An IP packet, and the offset of its transport header.
#[derive(Clone, Debug)]
pub struct Built {
    pub bytes: Vec<u8>,
    pub transport: usize,
}

/// The two ends of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

impl Flow {
    /// A UDP header with its checksum, and its data.
    pub fn udp(self, data: &[u8]) -> Result<Vec<u8>> {
        let Self { source, destination } = self;
        let (from, to) = (source.port(), destination.port());
        let header = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                UdpHeader::with_ipv4_checksum(from, to, &ipv4_header(source.octets(), destination.octets(), 17), data)?
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                UdpHeader::with_ipv6_checksum(from, to, &ipv6_header(source.octets(), destination.octets(), 17), data)?
            }
            _ => anyhow::bail!("the ends of a packet are of different families"),
        };
        Ok([&header.to_bytes()[..], data].concat())
    }

    /// A TCP header with these flags (the last byte of the flags) and its checksum, and its data.
    pub fn tcp(self, flags: u8, data: &[u8]) -> Result<Vec<u8>> {
        let Self { source, destination } = self;
        let mut header = TcpHeader::new(source.port(), destination.port(), 1000, 64_000);
        (header.fin, header.syn, header.rst, header.psh) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 8 != 0);
        (header.ack, header.urg, header.ece, header.cwr) =
            (flags & 16 != 0, flags & 32 != 0, flags & 64 != 0, flags & 128 != 0);
        header.checksum = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header.calc_checksum_ipv4(&ipv4_header(source.octets(), destination.octets(), 6), data)?
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header.calc_checksum_ipv6(&ipv6_header(source.octets(), destination.octets(), 6), data)?
            }
            _ => anyhow::bail!("the ends of a packet are of different families"),
        };
        Ok([header.to_bytes().as_slice(), data].concat())
    }

    /// A packet with this transport protocol, header and data.
    pub fn packet(self, protocol: u8, transport: &[u8]) -> Result<Built> {
        self.extended(protocol, &[], transport)
    }

    /// A packet with more in its network header: IPv4 options in multiples of four bytes, or IPv6 extension headers. `next` is
    /// the protocol for IPv4, and the number of the first extension header for IPv6.
    pub fn extended(self, next: u8, extra: &[u8], transport: &[u8]) -> Result<Built> {
        let mut bytes = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = ipv4_header(source.octets(), destination.octets(), next);
                header.options = extra.try_into()?;
                header.set_payload_len(transport.len())?;
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = ipv6_header(source.octets(), destination.octets(), next);
                header.set_payload_length(extra.len() + transport.len())?;
                [&header.to_bytes()[..], extra].concat()
            }
            _ => anyhow::bail!("the ends of a packet are of different families"),
        };
        let offset = bytes.len();
        bytes.extend_from_slice(transport);
        Ok(Built { bytes, transport: offset })
    }
}

fn ipv4_header(source: [u8; 4], destination: [u8; 4], protocol: u8) -> Ipv4Header {
    Ipv4Header { time_to_live: HOPS, protocol: IpNumber(protocol), source, destination, ..Ipv4Header::default() }
}

fn ipv6_header(source: [u8; 16], destination: [u8; 16], next: u8) -> Ipv6Header {
    Ipv6Header { hop_limit: HOPS, next_header: IpNumber(next), source, destination, ..Ipv6Header::default() }
}

/// A number that marks a packet of the test, among packets of the kernel, in the flow label of IPv6.
const OURS: u8 = 0x0a;

/// Writes a number into the packet that all hosts on the way keep: the identification of IPv4, or the flow label of IPv6.
pub fn mark(packet: &mut [u8], number: u16) -> Result<()> {
    let [high, low] = number.to_be_bytes();
    if is_ipv6(packet) {
        packet.get_mut(1..4).context("the packet is too short")?.copy_from_slice(&[OURS, high, low]);
        return Ok(());
    }
    packet.get_mut(4..6).context("the packet is too short")?.copy_from_slice(&[high, low]);
    correct_checksum(packet);
    Ok(())
}

/// The number that [`mark`] has written.
pub fn marked(packet: &[u8]) -> Option<u16> {
    match packet {
        [first, kind, high, low, ..] if first >> 4 == 6 => (*kind == OURS).then(|| u16::from_be_bytes([*high, *low])),
        [_, _, _, _, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// Whether the packet says that it is of IPv6.
pub fn is_ipv6(packet: &[u8]) -> bool {
    packet.first().is_some_and(|byte| byte >> 4 == 6)
}

/// Corrects the checksum of an IPv4 header, as far as the packet has a whole header.
fn correct_checksum(packet: &mut [u8]) {
    if let Ok((header, _)) = Ipv4Header::from_slice(packet)
        && let Some(field) = packet.get_mut(10..12)
    {
        field.copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    }
}
