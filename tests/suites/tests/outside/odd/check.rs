//! Checks that a packet at a pod is what another packet should have become.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use etherparse::Ipv4Header;

use super::build::{Built, is_ipv6};

/// `IPPROTO_UDP`
pub const UDP: u8 = 17;

/// `IPPROTO_TCP`
pub const TCP: u8 = 6;

/// Fails unless `delivered` is `sent` with other addresses and ports only: to `pod`, from `client`, with correct checksums, and
/// a lower time to live.
pub fn expect_translation(sent: &Built, protocol: u8, delivered: &[u8], pod: SocketAddr, client: IpAddr) -> Result<()> {
    let header = if is_ipv6(&sent.bytes) { 40 } else { 20 };
    ensure!(delivered.len() == length(&sent.bytes)?, "the length is {} instead of {}", delivered.len(), length(&sent.bytes)?);
    ensure!(addresses(delivered)? == (client, pod.ip()), "the addresses are {:?}", addresses(delivered)?);
    if header == 20 {
        let (header, _) = Ipv4Header::from_slice(delivered)?;
        ensure!(header.header_checksum == header.calc_header_checksum(), "the checksum of the network header is wrong");
    }
    let checksum = sent.transport + if protocol == TCP { 16 } else { 6 };
    // These bytes may differ: the time to live and the checksum of the network header, the addresses, ports, and the checksum.
    let is_free = |at: usize| {
        let hops = if header == 20 { at == 8 || (10..20).contains(&at) } else { at == 7 || (8..40).contains(&at) };
        hops || (sent.transport..sent.transport + 4).contains(&at) || (checksum..checksum + 2).contains(&at)
    };
    for (at, (old, new)) in sent.bytes.iter().zip(delivered).enumerate() {
        ensure!(old == new || is_free(at), "byte {at} has changed from {old:#04x} to {new:#04x}");
    }
    let port = word(delivered, sent.transport + 2)?;
    ensure!(port == pod.port(), "the destination port is {port}");
    let (before, after) = (word(&sent.bytes, checksum)?, word(delivered, checksum)?);
    ensure!((before == 0) == (after == 0) || protocol == TCP, "the checksum has changed from {before:#06x} to {after:#06x}");
    let (old, new) = (sum(&sent.bytes, sent.transport)?, sum(delivered, sent.transport)?);
    ensure!(before == 0 && protocol == UDP || old == new, "the checksum is off by {}", new.wrapping_sub(old));
    Ok(())
}

/// The length of a packet, as its network header states it.
fn length(packet: &[u8]) -> Result<usize> {
    Ok(if is_ipv6(packet) { 40 + usize::from(word(packet, 4)?) } else { word(packet, 2)?.into() })
}

/// The source and the destination.
pub fn addresses(packet: &[u8]) -> Result<(IpAddr, IpAddr)> {
    let both = packet.get(if is_ipv6(packet) { 8..40 } else { 12..20 }).context("the packet has no addresses")?;
    let (source, destination) = both.split_at(both.len() / 2);
    Ok((address(source)?, address(destination)?))
}

fn address(bytes: &[u8]) -> Result<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)))).context("it is no address")
}

/// The number at an offset.
pub fn word(packet: &[u8], at: usize) -> Result<u16> {
    let bytes = packet.get(at..at + 2).with_context(|| format!("the packet has no byte {}", at + 1))?;
    Ok(u16::from_be_bytes(bytes.try_into()?))
}

/// The sum that the transport checksum makes 0: of the addresses, and of everything from the transport header on.
fn sum(packet: &[u8], transport: usize) -> Result<u16> {
    let end = length(packet)?.min(packet.len());
    let addresses = if is_ipv6(packet) { 8..40 } else { 12..20 };
    let parts = [packet.get(addresses).unwrap_or_default(), packet.get(transport..end).unwrap_or_default()];
    Ok(ones_sum(parts))
}

/// The sum of the words of some parts in ones' complement arithmetic, from 0 to 0xfffe.
pub fn ones_sum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u16 {
    let words = parts.into_iter().flat_map(|part| part.chunks(2));
    let words = words.map(|word| u64::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])));
    (words.sum::<u64>() % 0xffff) as u16
}

/// Fails unless `delivered` is an ICMP error with a correct checksum to `pod`, about a packet from `pod` to `client`.
pub fn expect_error(delivered: &[u8], pod: SocketAddr, client: SocketAddr) -> Result<()> {
    ensure!(addresses(delivered)?.1 == pod.ip(), "the addresses are {:?}", addresses(delivered)?);
    let message = delivered.get(if is_ipv6(delivered) { 40 } else { 20 }..length(delivered)?).context("there is no message")?;
    let pseudo = if is_ipv6(delivered) {
        let length = u32::try_from(message.len())?.to_be_bytes();
        [&delivered[8..40], &length, &[0, 0, 0, 58]].concat()
    } else {
        Vec::new()
    };
    ensure!(ones_sum([&pseudo[..], message]) == 0, "the checksum of the message is wrong");
    let quoted = message.get(8..).context("the message quotes no packet")?;
    ensure!(addresses(quoted)? == (pod.ip(), client.ip()), "it quotes a packet with {:?}", addresses(quoted)?);
    let transport = if is_ipv6(quoted) { ipv6_transport(quoted) } else { usize::from(quoted[0] & 0x0f) * 4 };
    let ports = (word(quoted, transport)?, word(quoted, transport + 2)?);
    ensure!(ports == (pod.port(), client.port()), "it quotes a packet with the ports {ports:?}");
    if !is_ipv6(quoted) {
        let (header, _) = Ipv4Header::from_slice(quoted)?;
        ensure!(header.header_checksum == header.calc_header_checksum(), "the checksum of the quoted header is wrong");
    }
    Ok(())
}

/// The offset of the transport header of an IPv6 packet with one extension header of eight bytes, or with none.
fn ipv6_transport(packet: &[u8]) -> usize {
    const DESTINATION: u8 = 60;
    if packet.get(6) == Some(&DESTINATION) { 48 } else { 40 }
}

/// The transport protocol of a packet without extension headers.
pub fn protocol(packet: &[u8]) -> Option<u8> {
    packet.get(if is_ipv6(packet) { 6 } else { 9 }).copied()
}
