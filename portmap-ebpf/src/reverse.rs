//! From a backend back to what the client asked for: in `getpeername()`, and as the source of datagrams received.

use portmap_common::Destination;

use crate::{socket::Socket, socket_notes};

/// Shows the peer of a connected socket as the Service that it asked for.
#[inline(always)]
pub fn peer<S: Socket>(socket: &S) {
    show(socket, socket_notes::asked_of_peer(socket, &socket.destination()));
}

/// Shows the sender of a datagram as the Service that the socket sent to.
#[inline(always)]
pub fn sender<S: Socket>(socket: &S) {
    let sender = socket.destination();
    // A connected socket receives from its peer only, whatever it sent elsewhere.
    let asked = if socket.is_connected() {
        socket_notes::asked_of_peer(socket, &sender)
    } else {
        socket_notes::asked_of_sender(socket, &sender)
    };
    show(socket, asked);
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a port has 16 bits")]
fn show<S: Socket>(socket: &S, asked: Option<Destination>) {
    if let Some(asked) = asked {
        socket.redirect(portmap_common::Address::from_neutral(asked.address), asked.port as u16);
    }
}
