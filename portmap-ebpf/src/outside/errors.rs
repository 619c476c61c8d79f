//! ICMP errors about a packet of a flow. An error quotes the packet, and travels against it: so it finds the flow's entry by
//! the quoted packet, reversed.

use aya_ebpf::bindings::__sk_buff;
use portmap_common::{
    FlowKey,
    packet::{self as headers, Bytes as _, Fragment, Message},
};

use super::{DROP, Family, NEXT, flows, packet::Packet, rewrite, tables::Walk};

/// The error is translated, and goes on. Other values are a program's return value.
pub const REWRITTEN: i32 = 0;

/// Translates an ICMP error, so that it seems to be about the packet that its receiver knows. Other messages go on.
///
/// A redirect of a flow's packets is dropped: its receiver must not change its routes for an address that it never used.
///
/// Returns [`REWRITTEN`] or a program's return value. Not inlined, so that it has its own stack: few packets need it.
#[inline(never)]
pub fn translate<A: Family, const LINK: usize, const HOOK: u8>(context: *mut __sk_buff, walk: &mut Walk<A>) -> i32 {
    let packet = Packet::<LINK>::new(context);
    let Some([first]) = packet.words(walk.headers.transport) else { return NEXT };
    let [kind, ..] = first.to_ne_bytes();
    let Some(message) = A::message(kind) else { return NEXT };
    if A::headers(&packet, walk.headers.transport + headers::ICMP_HEADER, &mut walk.quoted).is_none() {
        return NEXT;
    }
    if !headers::is_translated(walk.quoted.protocol) || walk.quoted.fragment == Fragment::Later {
        return NEXT;
    }
    if walk.quoted.transport + headers::QUOTED_PORTS > walk.headers.end {
        return NEXT;
    }
    let Some(ports) = headers::quoted_ports(&packet, walk.quoted.transport) else { return NEXT };
    walk.ports = ports;
    walk.key = FlowKey {
        source: walk.quoted.destination,
        destination: walk.quoted.source,
        source_port: ports.destination,
        destination_port: ports.source,
        protocol: walk.quoted.protocol,
        hook: HOOK,
        unused: 0,
    };
    if !flows::find(walk, 0) {
        return NEXT;
    }
    if message == Message::Redirect || walk.entry.lacks_source(&walk.key) {
        return DROP;
    }
    if !rewrite::error::<A, LINK, HOOK>(packet.context(), walk) {
        return DROP;
    }
    REWRITTEN
}
