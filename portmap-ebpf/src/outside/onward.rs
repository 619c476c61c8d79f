//! Sends packets on that only pass through this node: those between a hidden client and a backend on another node.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "lengths in a packet, and results of helpers, fit"
)]

use core::mem;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_fib_lookup as Route},
    helpers::generated::{bpf_fib_lookup, bpf_redirect},
};
use portmap_common::{
    BARE, HIDDEN, REMOTE, REPLIED, TCP, V4, V6,
    packet::{Bytes as _, Fragment, Headers},
};

use super::{
    DROP, NEXT,
    packet::{ETHERNET, Packet},
    rewrite::Rewrite,
    tables::{self, Walk},
};
use crate::switches::SHORTCUT;

/// The address family in a question for a route, and the change of a forwarded packet's header.
pub trait Onward: Rewrite {
    /// Asks for the route from `source` to `destination`.
    fn ask(route: &mut Route, source: Self, destination: Self);

    /// Lowers the time to live by one. `checksum` is the header's checksum before.
    fn lower<const LINK: usize>(packet: Packet<LINK>, headers: &Headers<Self>) -> bool;
}

/// Redirects a rewritten packet to the device that sends it, if the shortcut is on. Otherwise, and in any doubt, the packet
/// goes on to the kernel's routing. So do the packets before the backend's first answer: the kernel drops those whose source
/// address no client can have. Returns the program's return value.
#[inline(always)]
pub fn send<A: Onward, const LINK: usize>(packet: Packet<LINK>, walk: &Walk<A>) -> i32 {
    let Walk { headers, entry, .. } = walk;
    let passes = REMOTE | HIDDEN | REPLIED;
    if SHORTCUT.load() == 0
        || LINK != ETHERNET
        || entry.state & passes != passes
        || headers.time_to_live <= 1
        || headers.fragment != Fragment::Whole
    {
        return NEXT;
    }
    redirect::<A, LINK>(packet.context(), walk)
}

/// Not inlined, so that its stack is free while a flow is opened.
#[inline(never)]
fn redirect<A: Onward, const LINK: usize>(context: *mut __sk_buff, walk: &Walk<A>) -> i32 {
    let packet = Packet::<LINK>::new(context);
    let Walk { headers, entry, .. } = walk;
    // SAFETY: all bytes 0 are a valid question.
    let mut route: Route = unsafe { mem::zeroed() };
    route.l4_protocol = headers.protocol;
    route.ifindex = packet.device();
    let Some(length) = length(packet, headers) else { return NEXT };
    route.__bindgen_anon_1.tot_len = length;
    A::ask(&mut route, headers.source, entry.address);
    // SAFETY: the question is initialized, and the context is valid.
    let result = unsafe { bpf_fib_lookup(packet.context().cast(), &raw mut route, size_of::<Route>() as i32, 0) };
    // Only a device with an egress program completes the flow.
    if result != 0 || tables::device(route.ifindex).is_none_or(|device| device.flags & BARE != 0) {
        return NEXT;
    }
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (route.dmac, route.smac);
    if !A::lower(packet, headers) || !packet.store_link(&[a, b, c, d, e, f, g, h, i, j, k, l]) {
        return DROP;
    }
    // SAFETY: the helper takes no pointer.
    unsafe { bpf_redirect(route.ifindex, 0) as i32 }
}

/// The length of the packet, or of each segment that the kernel makes of it, from the network header on.
#[inline(always)]
fn length<A: Onward, const LINK: usize>(packet: Packet<LINK>, headers: &Headers<A>) -> Option<u16> {
    let segment = packet.segment_size();
    if segment == 0 {
        return Some((packet.length() - LINK as u32) as u16);
    }
    let transport = if headers.protocol == TCP {
        let [state] = packet.words(headers.transport + 12)?;
        let [offset, ..] = state.to_ne_bytes();
        u32::from(offset >> 4) * 4
    } else {
        8
    };
    Some((segment + headers.transport as u32 + transport) as u16)
}

impl Onward for V4 {
    #[inline(always)]
    fn ask(route: &mut Route, source: V4, destination: V4) {
        const INET: u8 = 2;
        route.family = INET;
        route.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(source);
        route.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(destination);
    }

    #[inline(always)]
    fn lower<const LINK: usize>(packet: Packet<LINK>, headers: &Headers<V4>) -> bool {
        let (old, new) = ([headers.time_to_live, headers.protocol], [headers.time_to_live - 1, headers.protocol]);
        packet.update_header_checksum(10, old, new) && packet.store(8, &new)
    }
}

impl Onward for V6 {
    #[inline(always)]
    fn ask(route: &mut Route, source: V6, destination: V6) {
        const INET6: u8 = 10;
        route.family = INET6;
        route.__bindgen_anon_3.ipv6_src = portmap_common::Address::words(source);
        route.__bindgen_anon_4.ipv6_dst = portmap_common::Address::words(destination);
    }

    #[inline(always)]
    fn lower<const LINK: usize>(packet: Packet<LINK>, headers: &Headers<V6>) -> bool {
        packet.store(7, &[headers.time_to_live - 1])
    }
}
