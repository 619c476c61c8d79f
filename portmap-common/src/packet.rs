//! The headers of IP packets, as far as translation needs them: addresses, ports, fragments, and the packet that an ICMP error
//! quotes.
//!
//! This parser has no access to the kernel, so tests run it on any bytes. Packets that it does not understand are `None`:
//! programs pass them unchanged.
#![expect(clippy::inline_always, reason = "the programs do this for each packet, and a call takes as long as what it calls")]

use crate::{Address, TCP, UDP, V4, V6};

/// `IPPROTO_ICMP`.
const ICMP: u8 = 1;

/// `IPPROTO_ICMPV6`.
const ICMPV6: u8 = 58;

/// Length of an ICMP header in bytes. The quoted packet follows.
pub const ICMP_HEADER: usize = 8;

/// Length of the ports in the packet that an ICMP error quotes, in bytes.
pub const QUOTED_PORTS: usize = 4;

/// Maximum number of IPv6 extension headers before the transport header.
const EXTENSIONS: usize = 4;

/// Read access to the bytes of a packet.
pub trait Bytes {
    /// `N` words of 4 bytes in memory order, at `offset` from the network header; `None` beyond the end of the packet.
    ///
    /// Words, because programs read and copy them as they are. Single bytes would be split and put together again.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;
}

/// The place of a packet among the fragments of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Fragment {
    /// The packet is a whole datagram.
    #[default]
    Whole,
    /// The first fragment, which has the transport header.
    First,
    /// A later fragment, without a transport header.
    Later,
}

/// The network header of a packet, and the position of the transport header. The addresses are first, so that they are aligned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Headers<A> {
    /// The source address.
    pub source: A,
    /// The destination address.
    pub destination: A,
    /// Offset of the transport header from the network header of the outermost packet, in bytes.
    pub transport: usize,
    /// Offset of the end of the packet, as its header says; 0 if it says nothing, as in a packet that the kernel will divide.
    /// Link layers may add bytes after the end.
    pub end: usize,
    /// The identification of the datagram; 0 for a whole datagram.
    pub identification: u32,
    /// The place among the fragments of the datagram.
    pub fragment: Fragment,
    /// The transport protocol.
    pub protocol: u8,
    /// The time to live, or the hop limit.
    pub time_to_live: u8,
    /// The checksum of an IPv4 header, as in the packet; 0 for IPv6.
    pub checksum: u16,
}

/// The ports of a packet, in host order, and its TCP flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// The source port.
    pub source: u16,
    /// The destination port.
    pub destination: u16,
    /// The TCP flags: [`FIN`] and others; 0 for UDP, fragments without a transport header, and quoted packets.
    pub flags: u8,
}

impl<A> Headers<A> {
    /// Whether the transport header ends before the packet does: 20 bytes of TCP, 8 of other protocols. Bytes after the end of
    /// the packet do not belong to it. A later fragment has no transport header.
    #[inline]
    pub fn has_transport(&self) -> bool {
        let least = if self.protocol == TCP { 20 } else { 8 };
        self.fragment == Fragment::Later || self.transport + least <= self.end
    }
}

/// The TCP flag FIN.
pub const FIN: u8 = 1;

/// The TCP flag SYN.
pub const SYN: u8 = 2;

/// The TCP flag RST.
pub const RST: u8 = 4;

/// The TCP flag ACK.
pub const ACK: u8 = 16;

/// The data of a TCP packet, in sequence numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The sequence number after the data, and after the FIN if there is one.
    pub end: u32,
    /// The acknowledgment number: the first sequence number that the sender has not received.
    pub acknowledged: u32,
}

impl Ports {
    /// Whether the packet opens a TCP connection: a SYN without ACK, RST and FIN.
    #[inline]
    pub fn opens(self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }
}

/// The kinds of ICMP messages about a packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Message {
    /// An error, which quotes the packet.
    Error,
    /// A redirect to another router, which quotes the packet.
    Redirect,
}

/// The packet format of an address family.
pub trait Family: Address {
    /// The protocol number of the family's ICMP.
    const ICMP: u8;

    /// Length of the network header without options and extension headers, in bytes. It ends with the destination address.
    const HEADER: usize;

    /// Reads the network header at `offset` from the outermost one into `headers`, because a program has only 512 bytes of
    /// stack. `None` if it is no header of this family, is truncated, or has too many extension headers.
    ///
    /// After an extension header that is unknown, or that changes the destination, `protocol` is the number of that header.
    fn headers(packet: &impl Bytes, offset: usize, headers: &mut Headers<Self>) -> Option<()>;

    /// The kind of an ICMP message with this type; `None` for messages that quote no packet.
    fn message(kind: u8) -> Option<Message>;
}

/// The ports at `transport`, with TCP flags if `protocol` is TCP. `None` for a truncated header.
#[inline(always)]
pub fn ports(packet: &impl Bytes, transport: usize, protocol: u8) -> Option<Ports> {
    if protocol == TCP {
        let [ports, _, _, state] = packet.words(transport)?;
        let [_, flags, _, _] = state.to_ne_bytes();
        Some(Ports { flags, ..of_word(ports) })
    } else {
        quoted_ports(packet, transport)
    }
}

/// The data of a TCP packet whose header is at `transport`. `length` is that of the packet from its network header on, in bytes.
/// `None` for a truncated header.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a packet is shorter than 4 GiB")]
pub fn segment(packet: &impl Bytes, transport: usize, length: usize) -> Option<Segment> {
    let [start, acknowledged, state] = packet.words(transport + 4)?;
    let [offset, flags, _, _] = state.to_ne_bytes();
    let data = length.checked_sub(transport + usize::from(offset >> 4) * 4)?;
    let end = u32::from_be(start).wrapping_add(data as u32).wrapping_add(u32::from(flags & FIN));
    Some(Segment { end, acknowledged: u32::from_be(acknowledged) })
}

/// The ports at `transport` without TCP flags, as in the packet that an ICMP error quotes. `None` for a truncated header.
#[inline(always)]
pub fn quoted_ports(packet: &impl Bytes, transport: usize) -> Option<Ports> {
    let [ports] = packet.words(transport)?;
    Some(of_word(ports))
}

/// The ports in the first word of a transport header.
#[inline]
fn of_word(word: u32) -> Ports {
    let [a, b, c, d] = word.to_ne_bytes();
    Ports { source: u16::from_be_bytes([a, b]), destination: u16::from_be_bytes([c, d]), flags: 0 }
}

/// Whether the protocol is translated: TCP or UDP.
#[inline]
pub fn is_translated(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP
}

/// The checksum of an IPv4 header after a change of one address (RFC 1624, equation 3). Checksums are as in the packet.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the sum is folded into 16 bits")]
pub fn checksum_after(checksum: u16, old: V4, new: V4) -> u16 {
    let halves = |[a, b, c, d]: V4| u32::from(u16::from_ne_bytes([a, b])) + u32::from(u16::from_ne_bytes([c, d]));
    let inverted = halves(old.map(|byte| !byte));
    let sum = u32::from(!checksum) + inverted + halves(new);
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

impl Family for V4 {
    const ICMP: u8 = ICMP;
    const HEADER: usize = 20;

    #[inline(always)]
    fn headers(packet: &impl Bytes, offset: usize, headers: &mut Headers<V4>) -> Option<()> {
        let [first, second, third, source, destination] = packet.words(offset)?;
        let ([version, _, l, n], [i, j, f, o]) = (first.to_ne_bytes(), second.to_ne_bytes());
        let [time_to_live, protocol, c, k] = third.to_ne_bytes();
        let length = usize::from(version & 0x0f) * 4;
        if version >> 4 != 4 || length < Self::HEADER {
            return None;
        }
        let fragment = u16::from_be_bytes([f, o]);
        let (place, identification) = place(fragment & 0x1fff, fragment & 0x2000 != 0, u32::from(u16::from_be_bytes([i, j])));
        *headers = Headers {
            source: source.to_ne_bytes(),
            destination: destination.to_ne_bytes(),
            transport: offset + length,
            end: end(offset, u16::from_be_bytes([l, n])),
            identification,
            fragment: place,
            protocol,
            time_to_live,
            checksum: u16::from_ne_bytes([c, k]),
        };
        Some(())
    }

    #[inline]
    fn message(kind: u8) -> Option<Message> {
        match kind {
            3 | 11 | 12 => Some(Message::Error),
            5 => Some(Message::Redirect),
            _ => None,
        }
    }
}

/// The end of a packet with this number of bytes from `offset` on; 0 if the number is 0.
#[inline]
fn end(offset: usize, length: u16) -> usize {
    if length == 0 { 0 } else { offset + usize::from(length) }
}

/// The place of a fragment, and the identification to keep for it.
#[inline]
fn place(offset: u16, has_more: bool, identification: u32) -> (Fragment, u32) {
    match (offset, has_more) {
        (0, false) => (Fragment::Whole, 0),
        (0, true) => (Fragment::First, identification),
        _ => (Fragment::Later, identification),
    }
}

impl Family for V6 {
    const ICMP: u8 = ICMPV6;
    const HEADER: usize = 40;

    #[inline]
    fn headers(packet: &impl Bytes, offset: usize, headers: &mut Headers<V6>) -> Option<()> {
        let [first, second, a, b, c, d, p, q, r, s] = packet.words(offset)?;
        let ([version, ..], [l, n, next, time_to_live]) = (first.to_ne_bytes(), second.to_ne_bytes());
        if version >> 4 != 6 {
            return None;
        }
        headers.source = V6::from_neutral([a, b, c, d]);
        headers.destination = V6::from_neutral([p, q, r, s]);
        headers.transport = offset + Self::HEADER;
        headers.end = end(headers.transport, u16::from_be_bytes([l, n]));
        (headers.identification, headers.fragment) = (0, Fragment::Whole);
        (headers.protocol, headers.time_to_live, headers.checksum) = (next, time_to_live, 0);
        for _ in 0..EXTENSIONS {
            if !headers.skip_extension(packet)? {
                return Some(());
            }
        }
        is_transport(headers.protocol).then_some(())
    }

    #[inline]
    fn message(kind: u8) -> Option<Message> {
        match kind {
            1..=4 => Some(Message::Error),
            137 => Some(Message::Redirect),
            _ => None,
        }
    }
}

/// Whether no extension header can have this number.
#[inline]
fn is_transport(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP || protocol == ICMPV6
}

impl Headers<V6> {
    /// Skips one extension header. False if the transport header is reached, or the header is of an unknown kind.
    #[inline]
    fn skip_extension(&mut self, packet: &impl Bytes) -> Option<bool> {
        const HOP_BY_HOP: u8 = 0;
        const FRAGMENT: u8 = 44;
        const DESTINATION: u8 = 60;
        match self.protocol {
            // A later fragment begins with data, whatever the header before it says.
            _ if self.fragment == Fragment::Later => Some(false),
            HOP_BY_HOP | DESTINATION => {
                let [first] = packet.words(self.transport)?;
                let [next, length, ..] = first.to_ne_bytes();
                self.transport += (usize::from(length) + 1) * 8;
                self.protocol = next;
                Some(true)
            }
            FRAGMENT => {
                let [first, identification] = packet.words(self.transport)?;
                let [next, _, f, o] = first.to_ne_bytes();
                let fragment = u16::from_be_bytes([f, o]);
                (self.fragment, self.identification) = place(fragment >> 3, fragment & 1 != 0, u32::from_be(identification));
                self.transport += 8;
                self.protocol = next;
                Some(true)
            }
            _ => Some(false),
        }
    }
}
