//! Notes on sockets: values in the kernel's storage of a socket. A note has the frontend that the socket asked for, and the
//! backend that it was given.
//!
//! These layouts have a version of their own. Notes live as long as their socket, so they stay valid when the layouts of the
//! tables change.

use crate::{Address, FrontendKey, Neutral, layout};

/// The version of the layouts in this file: part of the path where SOCKETS, DATAGRAMS and NUMBERS are pinned.
pub const SOCKETS_VERSION: u32 = 3;

/// Maximum number of frontends in the note of a socket that is not connected.
pub const DESTINATIONS: usize = 8;

/// An address and a port of either family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Destination {
    /// The address; IPv4 in the IPv4-mapped form.
    pub address: Neutral,
    /// The port, in host order.
    pub port: u32,
}

layout!(Destination, 20);

impl Destination {
    /// Whether address and port are equal. Compares without a branch per word, because the verifier follows each branch.
    #[inline]
    pub fn is(&self, other: &Self) -> bool {
        let ([a, b, c, d], [k, l, m, n]) = (self.address, other.address);
        (a ^ k) | (b ^ l) | (c ^ m) | (d ^ n) | (self.port ^ other.port) == 0
    }
}

/// An endpoint that was chosen for a frontend. Each word is read and written atomically. `check` shows whether both words are
/// from the same write, and whether the endpoint was chosen for a given frontend and service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Chosen {
    /// The endpoint's number, or [`BEING_WRITTEN`].
    pub number: u64,
    /// [`FrontendKey::digest`] of the number and the service port's `id`.
    pub check: u64,
}

layout!(Chosen, 16);

impl Chosen {
    /// An endpoint that is chosen for a frontend of the service port with this `id`.
    #[inline]
    pub fn new<A: Address>(number: u64, frontend: &FrontendKey<A>, id: u64) -> Self {
        Self { number, check: frontend.digest(number, id) }
    }

    /// Whether the endpoint was chosen for this frontend of the service port with this `id`.
    #[inline]
    pub fn is_for<A: Address>(self, frontend: &FrontendKey<A>, id: u64) -> bool {
        self.check == frontend.digest(self.number, id)
    }
}

// The programs access the fields as 8-byte words at these offsets.
const _: () = assert!(core::mem::offset_of!(Chosen, number) == 0);
const _: () = assert!(core::mem::offset_of!(Chosen, check) == 8);

/// The value of [`Chosen::number`] while a program writes the other fields of the note. No endpoint has this number.
pub const BEING_WRITTEN: u64 = u64::MAX;

/// A value of `SOCKETS`: the frontend that a connected socket asked for, and the backend that it is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Connected {
    /// The endpoint of the backend.
    pub endpoint: Chosen,
    /// The frontend that the socket asked for.
    pub asked: Destination,
    /// The backend. Its port is 0 if the process itself has since connected the socket to the backend's address.
    pub given: Destination,
    /// The cookie of a UDP socket, by which the agent destroys the socket when its endpoint no longer serves; 0 for other
    /// sockets.
    pub cookie: u64,
    /// The cookie of a UDP socket's network namespace; 0 for other sockets.
    pub namespace: u64,
}

layout!(Connected, 72);

/// A flag of [`Flow::used`]: the socket has received an answer from the backend since the flow's last datagram.
pub const ANSWERED: u64 = 1;

/// The step by which [`Datagrams::clock`] advances. The lowest bit stays free for [`ANSWERED`].
pub const CALL: u64 = 2;

/// A frontend that a socket sent datagrams to, and the backend that received them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// The endpoint of the backend. If a reader finds the same value before and after it reads the other fields, they are
    /// from the same write.
    pub endpoint: Chosen,
    /// The frontend that the socket sent to.
    pub asked: Destination,
    /// The backend that received the datagrams.
    pub given: Destination,
    /// The value of [`Datagrams::clock`] at the last datagram of this flow, plus [`ANSWERED`] after an answer. 0 for an
    /// unused flow, and for a flow whose socket has since sent to the backend's own address: answers from there keep that
    /// address.
    pub used: u64,
}

layout!(Flow, 64);

/// A value of `DATAGRAMS`: the last frontends that a socket sent to without being connected, and their backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Datagrams {
    /// A logical clock. Each datagram to a Service advances it by a multiple of [`CALL`].
    pub clock: u64,
    /// The flows, in no order. A new flow replaces the one that was unused for longest.
    pub flows: [Flow; DESTINATIONS],
}

layout!(Datagrams, 520);

/// The one value of `NUMBERS`: the next id and the next endpoint number to assign. Notes on sockets hold such numbers, so no
/// number is assigned twice while the map is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Numbers {
    /// The next `id` of a service port. All lower ids may be in use.
    pub next_id: u64,
    /// The next number of an endpoint. All lower numbers may be in use.
    pub next_endpoint: u64,
}

layout!(Numbers, 16);

/// One record in the output of the programs `stale` and `stale_udp`: a UDP socket that was connected to a Service, and whose
/// endpoint is not in `ENDPOINTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EndedSocketRecord {
    /// The socket's cookie.
    pub cookie: u64,
    /// The cookie of the socket's network namespace.
    pub namespace: u64,
    /// The frontend that the socket asked for.
    pub asked: Destination,
    /// The backend in the socket's note. The agent checks whether the socket is still connected to it.
    pub given: Destination,
}

layout!(EndedSocketRecord, 56);
