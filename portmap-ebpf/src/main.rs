//! The programs that the agent attaches: the entry point of each hook, and the sequence of steps that they share.
//!
//! The kernel calls a hook inside the system call, with an address that the hook may replace. The steps themselves are in
//! the library.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macros generate undocumented copies of the entry points")]
#![expect(clippy::needless_pass_by_value, reason = "the macros pass the context by value")]
#![expect(clippy::inline_always, reason = "a program is one function: calls are slow, and old verifiers check them separately")]

use aya_ebpf::{
    macros::{cgroup_sock_addr, classifier},
    programs::{SockAddrContext, TcContext},
};
use portmap_common::{EGRESS, INGRESS};
use portmap_ebpf::{
    decision,
    maps::Tables,
    outcome,
    outside::{self, ETHERNET},
    report, reverse, scope,
    socket::{Call, Ipv4Socket, Ipv6Socket, Socket},
    socket_notes, trace,
};

/// `connect()` to an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    translate(&Ipv4Socket::new(&context), Call::Connect)
}

/// `connect()` to an IPv6 address, including IPv4-mapped addresses.
#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    let socket = Ipv6Socket::new(&context);
    match socket.mapped() {
        Some(mapped) => translate(&mapped, Call::Connect),
        None => translate(&socket, Call::Connect),
    }
}

/// A UDP datagram with an IPv4 address in the call. The kernel calls it for an `AF_INET6` socket too, if the address, or the
/// peer of a connected socket, is IPv4-mapped.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(context: SockAddrContext) -> i32 {
    translate(&Ipv4Socket::new(&context), Call::Send)
}

/// A UDP datagram with an IPv6 address in the call. IPv4-mapped addresses go to [`sendmsg4`].
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(context: SockAddrContext) -> i32 {
    translate(&Ipv6Socket::new(&context), Call::Send)
}

/// A datagram received by an `AF_INET` socket, if the call asks for the source address.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(context: SockAddrContext) -> i32 {
    reverse::sender(&Ipv4Socket::new(&context));
    outcome::PROCEED
}

/// A datagram received by an `AF_INET6` socket, if the call asks for the source address.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(context: SockAddrContext) -> i32 {
    let socket = Ipv6Socket::new(&context);
    match socket.mapped() {
        Some(mapped) => reverse::sender(&mapped),
        None => reverse::sender(&socket),
    }
    outcome::PROCEED
}

/// `getpeername()` of an `AF_INET` socket.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(context: SockAddrContext) -> i32 {
    reverse::peer(&Ipv4Socket::new(&context));
    outcome::PROCEED
}

/// `getpeername()` of an `AF_INET6` socket.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(context: SockAddrContext) -> i32 {
    let socket = Ipv6Socket::new(&context);
    match socket.mapped() {
        Some(mapped) => reverse::peer(&mapped),
        None => reverse::peer(&socket),
    }
    outcome::PROCEED
}

/// A packet that a device with an Ethernet header has received.
#[classifier]
pub fn ingress(context: TcContext) -> i32 {
    outside::handle::<ETHERNET, INGRESS>(&context)
}

/// A packet that a device with an Ethernet header is about to send.
#[classifier]
pub fn egress(context: TcContext) -> i32 {
    outside::handle::<ETHERNET, EGRESS>(&context)
}

/// A packet that a device without a link-layer header has received, such as a tunnel of `WireGuard`.
#[classifier]
pub fn ingress_bare(context: TcContext) -> i32 {
    outside::handle::<0, INGRESS>(&context)
}

/// A packet that a device without a link-layer header is about to send.
#[classifier]
pub fn egress_bare(context: TcContext) -> i32 {
    outside::handle::<0, EGRESS>(&context)
}

/// Translates a call that names a destination: socket → scope → decision → `socket_notes` → report → trace → outcome. Returns the
/// hook's return value. A call outside of the scope, or neither TCP nor UDP, goes on unchanged.
#[inline(always)]
fn translate<S: Socket<Address: Tables>>(socket: &S, call: Call) -> i32 {
    let Some(frontend) = socket.frontend() else {
        return outcome::PROCEED;
    };
    if !scope::includes(socket) {
        return outcome::PROCEED;
    }
    let decision = decision::decide(socket, &frontend, call);
    socket_notes::record(socket, &frontend, call, &decision);
    report::count(&decision);
    report::log(socket, &frontend, &decision);
    trace::call(&frontend, call, &decision);
    outcome::carry_out(socket, call, &decision.outcome)
}
