//! The ports of fragments. Only the first fragment of a datagram has the ports. It notes them for the later ones.

use portmap_common::{
    FragmentKey, FragmentPorts,
    packet::{self as headers, ACK, Bytes, Fragment, Headers, Ports},
};

use super::{Family, tables::Walk};

/// Reads the ports of the walk's packet. False if the transport header is truncated, or the first fragment of the datagram was not
/// noted.
#[inline(always)]
pub fn read_ports<A: Family>(packet: &impl Bytes, walk: &mut Walk<A>, hook: u8) -> bool {
    if walk.headers.fragment == Fragment::Later {
        return read_noted(walk, hook);
    }
    let Some(ports) = headers::ports(packet, walk.headers.transport, walk.headers.protocol) else { return false };
    walk.ports = ports;
    true
}

/// Not inlined, so that it has its own stack: few packets are fragments.
#[inline(never)]
fn read_noted<A: Family>(walk: &mut Walk<A>, hook: u8) -> bool {
    let Some(noted) = A::fragment(&key(&walk.headers, hook)) else { return false };
    // SAFETY: the map returned the element, and any bytes are valid ports. If the kernel reuses it at this moment, at worst one
    // datagram is lost.
    let noted = unsafe { *noted };
    walk.ports = Ports { source: noted.source_port, destination: noted.destination_port, flags: ACK };
    true
}

/// Notes the ports, if the packet is a first fragment.
#[inline(always)]
pub fn note<A: Family>(walk: &Walk<A>, hook: u8) {
    if walk.headers.fragment == Fragment::First {
        note_ports(walk, hook);
    }
}

/// Not inlined, as [`read_noted`].
#[inline(never)]
fn note_ports<A: Family>(walk: &Walk<A>, hook: u8) {
    let noted = FragmentPorts { source_port: walk.ports.source, destination_port: walk.ports.destination };
    A::note_fragment(&key(&walk.headers, hook), noted);
}

#[inline(always)]
fn key<A: Family>(headers: &Headers<A>, hook: u8) -> FragmentKey<A> {
    FragmentKey {
        source: headers.source,
        destination: headers.destination,
        identification: headers.identification,
        protocol: headers.protocol,
        hook,
        unused: 0,
    }
}
