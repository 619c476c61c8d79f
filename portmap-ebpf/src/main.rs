//! The programs that the agent attaches: entry points only.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macros make undocumented twins of the entry points")]
#![expect(clippy::needless_pass_by_value, reason = "the macros hand the context over by value")]
#![expect(clippy::inline_always, reason = "a program is one function: calls cost, and old verifiers check them apart")]

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use portmap_ebpf::{
    forward,
    maps::Tables,
    outcome, report,
    socket::{Ipv4Socket, Ipv6Socket, Socket},
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

#[inline(always)]
fn connect<A: Tables, S: Socket<Address = A>>(socket: &S) -> i32 {
    let Some(frontend) = socket.frontend() else {
        return outcome::PROCEED;
    };
    let decision = forward::decide(&frontend);
    report::count(&decision);
    outcome::carry_out(socket, &decision.outcome)
}
