//! What is remembered on a socket: what it asked for, and what it was given.
//!
//! This layout has a version of its own: the storage of sockets that are open outlives a change of the tables.

use crate::{Address, FrontendKey, Neutral, layout};

/// The version of this file's layouts.
pub const SOCKETS_VERSION: u32 = 3;

/// How many destinations a socket that is not connected remembers.
pub const DESTINATIONS: usize = 8;

/// A destination of either family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Destination {
    /// The address.
    pub address: Neutral,
    /// The port, in host order.
    pub port: u32,
}

layout!(Destination, 20);

impl Destination {
    /// Whether both are the same, without a branch per word.
    #[inline]
    pub fn is(&self, other: &Self) -> bool {
        let ([a, b, c, d], [k, l, m, n]) = (self.address, other.address);
        (a ^ k) | (b ^ l) | (c ^ m) | (d ^ n) | (self.port ^ other.port) == 0
    }
}

/// An endpoint that was chosen for a frontend. Each word is read and written whole; `check` tells whether the two belong
/// together, and to the frontend and service port at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Chosen {
    /// The endpoint's number, or [`UNSETTLED`].
    pub number: u64,
    /// [`Frontend::digest`] of the number and the service port's `id`.
    pub check: u64,
}

layout!(Chosen, 16);

impl Chosen {
    /// An endpoint, chosen for a frontend of the service port with this `id`.
    #[inline]
    pub fn new<A: Address>(number: u64, frontend: &FrontendKey<A>, id: u64) -> Self {
        Self { number, check: frontend.digest(number, id) }
    }

    /// Whether it was chosen for this frontend of this service port.
    #[inline]
    pub fn is_for<A: Address>(self, frontend: &FrontendKey<A>, id: u64) -> bool {
        self.check == frontend.digest(self.number, id)
    }
}

// The programs access the fields as 8-byte words at these offsets.
const _: () = assert!(core::mem::offset_of!(Chosen, number) == 0);
const _: () = assert!(core::mem::offset_of!(Chosen, check) == 8);

/// The number in a note that is being written.
pub const UNSETTLED: u64 = u64::MAX;

/// A value of `SOCKETS`: what a connected socket asked for, and the backend that it is connected to instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Connected {
    /// The backend's endpoint.
    pub endpoint: Chosen,
    /// The frontend.
    pub asked: Destination,
    /// The backend. Port 0: the socket is connected to no backend of ours.
    pub given: Destination,
    /// The cookie of a UDP socket, which is destroyed when its backend ends; 0 of others.
    pub cookie: u64,
    /// The cookie of its network namespace; 0 of others than UDP sockets.
    pub namespace: u64,
}

layout!(Connected, 72);

/// A flag of [`Flow::used`]: the backend has answered since.
pub const ANSWERED: u64 = 1;

/// One call by the clock of [`Datagrams`]: the bit below is for [`ANSWERED`].
pub const CALL: u64 = 2;

/// A frontend that a socket sent datagrams to, and the backend that they went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// The backend's endpoint. It says whether what else is here belongs together.
    pub endpoint: Chosen,
    /// The frontend.
    pub asked: Destination,
    /// The backend.
    pub given: Destination,
    /// When the socket last sent this way, by the clock of [`Datagrams`], with [`ANSWERED`] once something came back. 0 if it has
    /// sent to the backend's own address since: then answers are not the frontend's.
    pub used: u64,
}

layout!(Flow, 64);

/// A value of `DATAGRAMS`: what a socket that is not connected sent to Services lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Datagrams {
    /// Counts the socket's calls, in steps of [`CALL`].
    pub clock: u64,
    /// The flows; the longest unused one gives way to a new one.
    pub flows: [Flow; DESTINATIONS],
}

layout!(Datagrams, 520);

/// The one value of `NUMBERS`: numbers that are given once, also by tables that come after these. Sockets remember them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Numbers {
    /// The next `id` of a service port: all below were given.
    pub next_id: u64,
    /// The next number of an endpoint: all below were given.
    pub next_endpoint: u64,
}

layout!(Numbers, 16);

/// What the program `stale` tells of a connected UDP socket whose endpoint is not in `ENDPOINTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EndedSocketRecord {
    /// The socket's cookie.
    pub cookie: u64,
    /// The cookie of its network namespace.
    pub namespace: u64,
    /// The frontend that it asked for.
    pub asked: Destination,
    /// The backend that it was given.
    pub given: Destination,
}

layout!(EndedSocketRecord, 56);
