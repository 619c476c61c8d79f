//! Changes addresses and ports of a packet, and the checksums that cover them.

use aya_ebpf::bindings::__sk_buff;
use portmap_common::{
    Address as _, INGRESS, TCP, UDP, V4, V6,
    packet::{self as headers, Fragment, Headers},
};

use super::{
    packet::{self, Packet, Part, checksum_flags},
    tables::Walk,
};
use crate::switches::IPV6_CHECKSUM;

/// The address of a packet that is changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// The checksums of an address family.
pub trait Rewrite: headers::Family {
    /// Writes an address into the network header at `offset`, and updates the header's own checksum.
    fn store<const LINK: usize>(packet: Packet<LINK>, offset: usize, headers: &Headers<Self>, side: Side, new: &Self) -> bool;

    /// Writes the outermost header's addresses with the ports that follow them, and the header's own checksum. One call of a helper
    /// takes less time than two.
    fn store_front<const LINK: usize>(packet: Packet<LINK>, front: &Front<Self>) -> bool;

    /// The header's own checksum after a change of an address; not used for IPv6.
    fn checksum(headers: &Headers<Self>, old: &Self, new: &Self) -> u16;

    /// Updates the transport checksum at `offset` after a change of an address.
    fn update<const LINK: usize>(packet: Packet<LINK>, offset: usize, old: &Self, new: &Self, flags: u64) -> bool;

    /// Updates the checksum of an ICMP message at `offset` after a change of an address: of an outer one, which is in the
    /// pseudo header, or of a quoted one.
    fn update_icmp<const LINK: usize>(packet: Packet<LINK>, offset: usize, old: &Self, new: &Self, part: Part) -> bool;
}

/// The bytes of a packet up to its ports, if they follow the addresses. `repr(C)` keeps their order, and aligns the words.
#[repr(C, align(8))]
pub struct Front<A> {
    unused: u16,
    /// The checksum of an IPv4 header, as in the packet.
    checksum: u16,
    source: A,
    destination: A,
    ports: [u8; 4],
}

/// Changes a packet of a flow. False if the kernel cannot make the packet writable: then it may be half changed.
///
/// Not inlined, so that its stack is free while a flow is opened.
#[inline(never)]
pub fn packet<A: Rewrite, const LINK: usize, const HOOK: u8>(context: *mut __sk_buff, walk: &Walk<A>) -> bool {
    let packet = Packet::<LINK>::new(context);
    let Walk { headers, ports, entry, .. } = walk;
    let (side, old, source, destination) = if HOOK == INGRESS {
        (Side::Destination, &headers.destination, entry.other_port, entry.port)
    } else {
        (Side::Source, &headers.source, entry.port, entry.other_port)
    };
    if headers.fragment == Fragment::Later {
        return A::store(packet, 0, headers, side, &entry.address);
    }
    let is_udp = headers.protocol == UDP;
    let checksum = headers.transport + if headers.protocol == TCP { 16 } else { 6 };
    let (before, after) = (bytes(ports.source, ports.destination), bytes(source, destination));
    A::update(packet, checksum, old, &entry.address, checksum_flags(Part::Pseudo, is_udp))
        && packet.update_checksum_of_word(checksum, before, after, checksum_flags(Part::Data, is_udp))
        && if headers.transport == A::HEADER {
            let (source, destination) =
                if side == Side::Source { (entry.address, headers.destination) } else { (headers.source, entry.address) };
            let checksum = A::checksum(headers, old, &entry.address);
            A::store_front(packet, &Front { unused: 0, checksum, source, destination, ports: after })
        } else {
            A::store(packet, 0, headers, side, &entry.address) && packet.store(headers.transport, &after)
        }
}

/// Changes an ICMP message and the packet that it quotes. False as in [`packet`].
#[inline(never)]
pub fn error<A: Rewrite, const LINK: usize, const HOOK: u8>(context: *mut __sk_buff, walk: &Walk<A>) -> bool {
    let packet = Packet::<LINK>::new(context);
    let Walk { headers, quoted, ports, entry, .. } = walk;
    let (outer, inner, before, quoted_before, source, destination) = if HOOK == INGRESS {
        (Side::Destination, Side::Source, &headers.destination, &quoted.source, entry.port, entry.other_port)
    } else {
        (Side::Source, Side::Destination, &headers.source, &quoted.destination, entry.other_port, entry.port)
    };
    let checksum = headers.transport + 2;
    // A router on the way sends the message from its own address, which stays.
    if before == quoted_before
        && !(A::store(packet, 0, headers, outer, &entry.address)
            && A::update_icmp(packet, checksum, before, &entry.address, Part::Pseudo))
    {
        return false;
    }
    let (old, new) = (bytes(ports.source, ports.destination), bytes(source, destination));
    A::store(packet, headers.transport + headers::ICMP_HEADER, quoted, inner, &entry.address)
        && A::update_icmp(packet, checksum, quoted_before, &entry.address, Part::Data)
        && packet.update_checksum_of_word(checksum, old, new, 0)
        && packet.store(quoted.transport, &new)
}

#[inline(always)]
fn bytes(source: u16, destination: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    [a, b, c, d]
}

impl Rewrite for V4 {
    #[inline(always)]
    fn store<const LINK: usize>(packet: Packet<LINK>, offset: usize, headers: &Headers<V4>, side: Side, new: &V4) -> bool {
        let old = if side == Side::Source { headers.source } else { headers.destination };
        let checksum = Self::checksum(headers, &old, new);
        let ([a, b, c, d], [e, f, g, h]) =
            if side == Side::Source { (*new, headers.destination) } else { (headers.source, *new) };
        let [i, j] = checksum.to_ne_bytes();
        packet.store(offset + 10, &[i, j, a, b, c, d, e, f, g, h])
    }

    #[inline(always)]
    fn store_front<const LINK: usize>(packet: Packet<LINK>, front: &Front<V4>) -> bool {
        // SAFETY: the checksum, the addresses and the ports are 14 initialized bytes without a gap.
        unsafe { packet.store_at(10, (&raw const front.checksum).cast(), 14) }
    }

    #[inline(always)]
    fn checksum(headers: &Headers<V4>, old: &V4, new: &V4) -> u16 {
        headers::checksum_after(headers.checksum, *old, *new)
    }

    #[inline(always)]
    fn update<const LINK: usize>(packet: Packet<LINK>, offset: usize, old: &V4, new: &V4, flags: u64) -> bool {
        packet.update_checksum_of_word(offset, *old, *new, flags)
    }

    #[inline(always)]
    fn update_icmp<const LINK: usize>(_: Packet<LINK>, _: usize, _: &V4, _: &V4, _: Part) -> bool {
        // The checksum has no pseudo header. A quoted address and its header's checksum change by the same amount.
        true
    }
}

impl Rewrite for V6 {
    #[inline(always)]
    fn store<const LINK: usize>(packet: Packet<LINK>, offset: usize, _: &Headers<V6>, side: Side, new: &V6) -> bool {
        packet.store(offset + if side == Side::Source { 8 } else { 24 }, new)
    }

    #[inline(always)]
    fn store_front<const LINK: usize>(packet: Packet<LINK>, front: &Front<V6>) -> bool {
        // SAFETY: the addresses and the ports are 36 initialized bytes without a gap.
        unsafe { packet.store_at(8, (&raw const front.source).cast(), 36) }
    }

    #[inline(always)]
    fn checksum(_: &Headers<V6>, _: &V6, _: &V6) -> u16 {
        0
    }

    #[inline(always)]
    fn update<const LINK: usize>(packet: Packet<LINK>, offset: usize, old: &V6, new: &V6, flags: u64) -> bool {
        packet.update_checksum(offset, packet::difference(old.words(), new.words()), flags | IPV6_CHECKSUM.load())
    }

    #[inline(always)]
    fn update_icmp<const LINK: usize>(packet: Packet<LINK>, offset: usize, old: &V6, new: &V6, part: Part) -> bool {
        let flag = if part == Part::Pseudo { IPV6_CHECKSUM.load() } else { 0 };
        packet.update_checksum(offset, packet::difference(old.words(), new.words()), checksum_flags(part, false) | flag)
    }
}
