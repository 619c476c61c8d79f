//! The programs that the agent attaches: entry points only.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macros make undocumented twins of the entry points")]
#![expect(clippy::needless_pass_by_value, reason = "the macros hand the context over by value")]
#![expect(clippy::inline_always, reason = "a program is one function: calls cost, and old verifiers check them apart")]

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use portmap_ebpf::{
    forward::{self, Action},
    maps::Tables,
    memory, outcome, report, reverse, scope,
    socket::{Call, Ipv4Socket, Ipv6Socket, Socket},
};

/// `connect()` to an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    connect(&Ipv4Socket::new(&context))
}

/// `connect()` to an IPv6 address, which may be an IPv4-mapped one.
#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    let socket = Ipv6Socket::new(&context);
    match socket.mapped() {
        Some(mapped) => connect(&mapped),
        None => connect(&socket),
    }
}

/// A datagram sent to an IPv4 address; of an `AF_INET6` socket too, which was given an IPv4-mapped one.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(context: SockAddrContext) -> i32 {
    send(&Ipv4Socket::new(&context))
}

/// A datagram sent to an IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(context: SockAddrContext) -> i32 {
    send(&Ipv6Socket::new(&context))
}

/// A datagram received by an `AF_INET` socket that asks for its source.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(context: SockAddrContext) -> i32 {
    reverse::sender(&Ipv4Socket::new(&context));
    outcome::PROCEED
}

/// A datagram received by an `AF_INET6` socket that asks for its source.
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

#[inline(always)]
fn connect<S: Socket<Address: Tables>>(socket: &S) -> i32 {
    let Some(frontend) = socket.frontend() else {
        return outcome::PROCEED;
    };
    if !scope::includes(socket) {
        return outcome::PROCEED;
    }
    let decision = forward::decide(socket, &frontend, Call::Connect);
    if decision.outcome.action == Action::Leave {
        memory::connected_plainly(socket);
    }
    report::count(&decision);
    report::log(socket, &frontend, &decision);
    outcome::carry_out(socket, Call::Connect, &decision.outcome)
}

#[inline(always)]
fn send<S: Socket<Address: Tables>>(socket: &S) -> i32 {
    let Some(frontend) = socket.frontend() else {
        return outcome::PROCEED;
    };
    if !scope::includes(socket) {
        return outcome::PROCEED;
    }
    let decision = forward::decide(socket, &frontend, Call::Send);
    if decision.outcome.action == Action::Leave {
        memory::sent_plainly(socket, &socket.destination());
    }
    report::count(&decision);
    report::log(socket, &frontend, &decision);
    outcome::carry_out(socket, Call::Send, &decision.outcome)
}
