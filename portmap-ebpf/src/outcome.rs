//! From a decision to what the client sees. The only place that does.

use portmap_common::Address;

use crate::{forward::Outcome, socket::Socket};

/// The hook's answer that lets the call go on.
pub const PROCEED: i32 = 1;

/// The hook's answer that fails the call, with the error set before.
const FAIL: i32 = 0;

/// `-ECONNREFUSED`: what a client gets from a host where nobody listens.
const REFUSED: i32 = -111;

/// `-ETIMEDOUT`: what a client gets, in the end, from packets that are dropped.
const TIMED_OUT: i32 = -110;

/// Carries the outcome of a `connect()` out on the socket, and returns the hook's answer.
#[inline(always)]
pub fn carry_out<A: Address, S: Socket<Address = A>>(socket: &S, outcome: &Outcome<A>) -> i32 {
    match outcome {
        Outcome::Leave => PROCEED,
        Outcome::Forward(backend) => {
            socket.redirect(backend.address, backend.port);
            PROCEED
        }
        Outcome::Refuse => fail(socket, REFUSED),
        Outcome::Drop => fail(socket, TIMED_OUT),
    }
}

#[inline(always)]
fn fail<S: Socket>(socket: &S, error: i32) -> i32 {
    socket.fail_with(error);
    FAIL
}
