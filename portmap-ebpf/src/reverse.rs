//! The reverse translation, in `getpeername()` and for the source of received datagrams: backend → the Service address that
//! the client asked for.
//!
//! Reads the notes that `socket_notes` has written for an earlier call. Reads no table, so it works after the Service is
//! deleted.

use portmap_common::Destination;

use crate::{socket::Socket, socket_notes};

/// Replaces the peer's address of a connected socket by the Service address that the socket asked for, if the socket's note
/// has this peer.
#[inline(always)]
pub fn peer<S: Socket>(socket: &S) {
    show(socket, socket_notes::asked_of_peer(socket, &socket.destination()));
}

/// Replaces the source address of a datagram by the Service address that the socket sent to, if a note has this source as a
/// backend.
#[inline(always)]
pub fn sender<S: Socket>(socket: &S) {
    let sender = socket.destination();
    // A connected socket receives only from its peer, even if it has sent datagrams to other addresses.
    let asked = if socket.is_connected() {
        socket_notes::asked_of_peer(socket, &sender)
    } else {
        socket_notes::asked_of_sender(socket, &sender)
    };
    show(socket, asked);
}

/// Replaces the address that the kernel returns to the process by `asked`, if there is one.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a port has 16 bits")]
fn show<S: Socket>(socket: &S, asked: Option<Destination>) {
    if let Some(asked) = asked {
        socket.redirect(portmap_common::Address::from_neutral(asked.address), asked.port as u16);
    }
}
