//! The outcome of a call, and its effect for the client: a new destination, or an error. The last step of a call, after
//! `report`.

use portmap_common::{Address, Backend, TCP};

use crate::{
    socket::{Call, Socket},
    switches::SETS_ERRORS,
};

/// The effect on a client's call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The call goes on unchanged: usually portmap does not serve the destination, or does not serve it for this client.
    Leave,
    /// The call goes on, with a backend as its destination.
    Forward,
    /// The call fails with `ECONNREFUSED`, as if no process listened on the port; with `EPERM` for UDP before kernel 5.18.
    Refuse,
    /// The call fails with `ETIMEDOUT`, as if no host answered; with `EPERM` before kernel 5.18.
    Drop,
}

/// The action for a client's call, and the new destination.
///
/// Not an enum with fields: the compiler copies the fields of all variants, and verifiers before 6.3 reject a copy of memory
/// that the program has not written.
#[derive(Clone, Copy)]
pub struct Outcome<A> {
    /// The effect on the call.
    pub action: Action,
    /// The backend of [`Action::Forward`]; zeroes for other actions.
    pub backend: Backend<A>,
}

impl<A: Address> Outcome<A> {
    /// The outcome of an action without a backend.
    #[inline(always)]
    pub fn of(action: Action) -> Self {
        Self { action, backend: Backend::default() }
    }

    /// The outcome of a call that is forwarded to this backend.
    #[inline(always)]
    pub fn forward(backend: Backend<A>) -> Self {
        Self { action: Action::Forward, backend }
    }
}

/// The hook's return value for a call that goes on.
pub const PROCEED: i32 = 1;

/// The hook's return value for a call that fails. The error is the one that [`Socket::fail_with`] has set, else `EPERM`.
const FAIL: i32 = 0;

/// `-ECONNREFUSED`: the error of a call to a port on which no process listens.
const REFUSED: i32 = -111;

/// `-ETIMEDOUT`: the error of a `connect()` whose packets are dropped.
const TIMED_OUT: i32 = -110;

/// Applies the outcome of a call to the socket, and returns the hook's return value.
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

/// Fails a call with `ECONNREFUSED`. Kernels before 5.18 cannot set the error: there, a TCP connection goes to port 0 of the
/// loopback address, and the kernel refuses it. Other calls fail with `EPERM` there.
#[inline(always)]
fn refuse<S: Socket>(socket: &S, call: Call) -> i32 {
    if SETS_ERRORS.load() == 0 && call == Call::Connect && socket.protocol() == TCP {
        socket.redirect(S::LOOPBACK, 0);
        PROCEED
    } else {
        fail(socket, REFUSED)
    }
}

/// Fails a call with the error `error`, a negative errno; with `EPERM` on kernels before 5.18.
#[inline(always)]
fn fail<S: Socket>(socket: &S, error: i32) -> i32 {
    if SETS_ERRORS.load() != 0 {
        socket.fail_with(error);
    }
    FAIL
}
