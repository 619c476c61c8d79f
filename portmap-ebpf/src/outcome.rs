//! The outcome of a call, and how the client sees it: a new destination, or an error. After `decision`; the last step of a hook.

use portmap_common::{Address, Backend, TCP};

use crate::{
    socket::{Call, Socket},
    switches::SETS_ERRORS,
};

/// What happens to a client's call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The call goes on unchanged: the destination is not portmap's, or is left to another proxy.
    Leave,
    /// The call goes on to a backend.
    Forward,
    /// The call fails with `ECONNREFUSED`, as if no socket listened.
    Refuse,
    /// The call fails with `ETIMEDOUT`, as if no host answered.
    Drop,
}

/// What happens to a client's call, and the new destination.
///
/// Not an enum with fields: the compiler copies the fields of the other variants too, and the verifier rejects a copy of memory
/// that the program has not written.
#[derive(Clone, Copy)]
pub struct Outcome<A> {
    /// The action.
    pub action: Action,
    /// The backend of [`Action::Forward`]; zeroes for other actions.
    pub backend: Backend<A>,
}

impl<A: Address> Outcome<A> {
    /// An action without a backend.
    #[inline(always)]
    pub fn of(action: Action) -> Self {
        Self { action, backend: Backend::default() }
    }

    /// Forwarding to a backend.
    #[inline(always)]
    pub fn forward(backend: Backend<A>) -> Self {
        Self { action: Action::Forward, backend }
    }
}

/// The hook's answer that lets the call go on.
pub const PROCEED: i32 = 1;

/// The hook's answer that fails the call, with the error set before; without one it is `EPERM`.
const FAIL: i32 = 0;

/// `-ECONNREFUSED`: what a client gets from a host where nobody listens.
const REFUSED: i32 = -111;

/// `-ETIMEDOUT`: what a client gets, in the end, from packets that are dropped.
const TIMED_OUT: i32 = -110;

/// Carries the outcome of a call out on the socket, and returns the hook's answer.
#[inline(always)]
pub fn carry_out<A: Address, S: Socket<Address = A>>(socket: &S, call: Call, outcome: &Outcome<A>) -> i32 {
    match outcome.action {
        Action::Leave => PROCEED,
        Action::Forward => {
            socket.redirect(outcome.backend.address, outcome.backend.port);
            PROCEED
        }
        Action::Refuse => refuse(socket, call),
        Action::Drop => fail(socket, TIMED_OUT),
    }
}

/// Where the error cannot be set, a TCP connection to port 0 of the loopback address is refused by the kernel itself.
#[inline(always)]
fn refuse<S: Socket>(socket: &S, call: Call) -> i32 {
    if SETS_ERRORS.load() == 0 && call == Call::Connect && socket.protocol() == TCP {
        socket.redirect(S::LOOPBACK, 0);
        PROCEED
    } else {
        fail(socket, REFUSED)
    }
}

#[inline(always)]
fn fail<S: Socket>(socket: &S, error: i32) -> i32 {
    if SETS_ERRORS.load() != 0 {
        socket.fail_with(error);
    }
    FAIL
}
