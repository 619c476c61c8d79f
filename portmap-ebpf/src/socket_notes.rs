//! What sockets remember: what they asked for, so that they are shown it again, and which backend their datagrams go to.
//!
//! The notes live on the socket itself and end with it. There is no table of connections to overflow or to clean.

use portmap_common::{
    ANSWERED, Address, Backend, CALL, Chosen, Datagrams, Destination, Flow, FrontendKey, TCP, UDP, BEING_WRITTEN,
};

use crate::{
    decision::{Decision, NOTED},
    maps::{self, DATAGRAMS, Notes as _, SOCKETS, Tables},
    outcome::Action,
    socket::{Call, Socket},
    switches::NOTES_TCP,
};

/// Writes a decision down on the socket. The only place that writes notes for a call.
#[inline(always)]
pub fn record<S: Socket>(socket: &S, frontend: &FrontendKey<S::Address>, call: Call, decision: &Decision<S::Address>) {
    let Decision { outcome, id, found: _ } = decision;
    match (outcome.action, call) {
        (Action::Forward, Call::Connect) => connected(socket, frontend, *id, &outcome.backend),
        (Action::Forward, Call::Send) if *id != NOTED => sent(socket, frontend, *id, &outcome.backend),
        (Action::Leave, Call::Connect) => connected_plainly(socket),
        (Action::Leave, Call::Send) => sent_plainly(socket, &socket.destination()),
        (Action::Forward | Action::Refuse | Action::Drop, _) => {}
    }
}

/// Notes what a socket asked for and is connected to; of a UDP socket also how to find it, since nothing else would tell it when
/// its backend ends: the agent destroys it then.
#[inline(always)]
fn connected<S: Socket>(socket: &S, frontend: &FrontendKey<S::Address>, id: u64, backend: &Backend<S::Address>) {
    if NOTES_TCP.load() == 0 && frontend.protocol == TCP {
        return;
    }
    let Some(note) = SOCKETS.create(&socket.as_context()) else {
        return maps::count(|totals| totals.forgotten_sockets += 1);
    };
    // Who lists the notes meanwhile must not take the new backend for the old endpoint's.
    unsettle(&mut note.endpoint);
    note.asked = asked(frontend);
    note.given = given(backend);
    if frontend.protocol == UDP {
        note.cookie = socket.cookie();
        note.namespace = socket.namespace();
    }
    settle(&mut note.endpoint, Chosen::new(backend.endpoint.get(), frontend, id));
}

/// Notes that a socket is being connected to an address that is no Service's. If that is the backend it had been given, it is the
/// socket's own choice from now on. Other notes may stay, since they are held against the peer: the call may fail yet, and then
/// the old connection stays.
#[inline(always)]
fn connected_plainly<S: Socket>(socket: &S) {
    if let Some(note) = SOCKETS.find(&socket.as_context())
        && note.given.is(&socket.destination())
    {
        note.given.port = 0;
    }
}

/// What a connected socket asked for, if this is the backend that it is connected to.
#[inline(always)]
pub fn asked_of_peer<S: Socket>(socket: &S, peer: &Destination) -> Option<Destination> {
    let note = SOCKETS.find(&socket.as_context())?;
    note.given.is(peer).then_some(note.asked)
}

/// The backend that the socket's last datagram to this frontend went to, if it still serves.
#[inline(always)]
pub fn last_backend<S: Socket<Address: Tables>>(
    socket: &S,
    frontend: &FrontendKey<S::Address>,
    id: u64,
) -> Option<Backend<S::Address>> {
    let notes = DATAGRAMS.find(&socket.as_context())?;
    let asked = asked(frontend);
    let clock = tick(notes);
    let flow = notes.flows.iter_mut().find(|flow| flow.asked.is(&asked))?;
    let backend = serving(frontend, id, read(&flow.endpoint))?;
    flow.used = clock;
    Some(backend)
}

/// The backend that the socket was connected to for this frontend before it was dissolved, if it still serves. Of such a
/// socket of IPv6 the kernel goes on to receive from that peer only.
#[inline(always)]
pub fn former_backend<S: Socket<Address: Tables>>(
    socket: &S,
    frontend: &FrontendKey<S::Address>,
    id: u64,
) -> Option<Backend<S::Address>> {
    let note = SOCKETS.find(&socket.as_context())?;
    if note.given.port == 0 || !note.asked.is(&asked(frontend)) {
        return None;
    }
    serving(frontend, id, read(&note.endpoint))
}

/// The backend of an endpoint that was chosen for this frontend of this service port, if it still serves.
#[inline(always)]
fn serving<A: Tables>(frontend: &FrontendKey<A>, id: u64, endpoint: Chosen) -> Option<Backend<A>> {
    if endpoint.is_for(frontend, id) { maps::endpoint(endpoint.number) } else { None }
}

/// Notes that the socket sends to this backend for this frontend from now on.
#[inline(always)]
fn sent<S: Socket>(socket: &S, frontend: &FrontendKey<S::Address>, id: u64, backend: &Backend<S::Address>) {
    let Some(notes) = DATAGRAMS.create(&socket.as_context()) else {
        return maps::count(|totals| totals.forgotten_sockets += 1);
    };
    let asked = asked(frontend);
    let clock = tick(notes);
    if let Some(flow) = place(notes, &asked) {
        // Another thread that reads meanwhile must not take the old endpoint for the new frontend's, or the reverse.
        unsettle(&mut flow.endpoint);
        flow.used = clock;
        flow.asked = asked;
        flow.given = given(backend);
        settle(&mut flow.endpoint, Chosen::new(backend.endpoint.get(), frontend, id));
    }
}

/// Notes that the socket sends to this destination itself: what comes from there is shown as it is. Not if it is the kernel that
/// sends again what had no room, to the address that it was given before: `io_uring` does. Then there was no answer yet.
#[inline(always)]
fn sent_plainly<S: Socket>(socket: &S, destination: &Destination) {
    if let Some(notes) = DATAGRAMS.find(&socket.as_context()) {
        for flow in &mut notes.flows {
            if flow.used & ANSWERED != 0 && flow.given.is(destination) {
                flow.used = 0;
            }
        }
    }
}

/// Whether this socket was itself given the destination, and not its process: the peer of a connected socket, which the kernel
/// names whenever an `AF_INET6` socket sends to an IPv4-mapped one; or what it sends again.
#[inline(always)]
pub fn was_given<S: Socket>(socket: &S, destination: &Destination) -> bool {
    if socket.is_connected() {
        return asked_of_peer(socket, destination).is_some();
    }
    let Some(notes) = DATAGRAMS.find(&socket.as_context()) else { return false };
    notes.flows.iter().any(|flow| flow.used & ANSWERED == 0 && flow.used != 0 && flow.given.is(destination))
}

/// What the socket asked for when it last sent to this backend.
#[inline(always)]
pub fn asked_of_sender<S: Socket>(socket: &S, sender: &Destination) -> Option<Destination> {
    let notes = DATAGRAMS.find(&socket.as_context())?;
    // Not an `Option`: until 6.3 the verifier refuses programs that move about what it has no value for, even if nobody looks at it.
    let (mut used, mut asked) = (0, Destination { address: [0; 4], port: 0 });
    for flow in &notes.flows {
        let before = read(&flow.endpoint);
        if flow.used > used && flow.given.is(sender) {
            let found = flow.asked;
            // Another thread may have put another flow in its place meanwhile.
            if read(&flow.endpoint) == before {
                used = flow.used;
                asked = found;
            }
        }
    }
    if used == 0 {
        return None;
    }
    for flow in &mut notes.flows {
        if flow.used == used {
            flow.used |= ANSWERED;
        }
    }
    Some(asked)
}

/// The flow to this frontend, else the one unused for longest.
#[inline(always)]
fn place<'a>(notes: &'a mut Datagrams, asked: &Destination) -> Option<&'a mut Flow> {
    let (mut best, mut longest) = (None, u64::MAX);
    for flow in &mut notes.flows {
        let used = if flow.asked.is(asked) { 0 } else { flow.used.saturating_add(1) };
        if used < longest || best.is_none() {
            longest = used;
            best = Some(flow);
        }
    }
    best
}

#[inline(always)]
fn tick(notes: &mut Datagrams) -> u64 {
    notes.clock = notes.clock.wrapping_add(CALL);
    notes.clock
}

/// The endpoint of a note, which may be written at this moment.
#[inline(always)]
pub fn read(endpoint: &Chosen) -> Chosen {
    let number = &raw const endpoint.number;
    let check = &raw const endpoint.check;
    // SAFETY: the field is one aligned 8-byte word.
    let number = unsafe { number.read_volatile() };
    // SAFETY: as above.
    let check = unsafe { check.read_volatile() };
    Chosen { number, check }
}

/// Before a note is written: who reads it meanwhile finds no endpoint.
#[inline(always)]
fn unsettle(place: &mut Chosen) {
    let number = &raw mut place.number;
    // SAFETY: the field is one aligned 8-byte word.
    unsafe { number.write_volatile(BEING_WRITTEN) };
}

/// After the rest of a note was written.
#[inline(always)]
fn settle(place: &mut Chosen, endpoint: Chosen) {
    let (number, check) = (&raw mut place.number, &raw mut place.check);
    // SAFETY: the field is one aligned 8-byte word.
    unsafe { check.write_volatile(endpoint.check) };
    // SAFETY: as above.
    unsafe { number.write_volatile(endpoint.number) };
}

#[inline(always)]
fn asked<A: Address>(frontend: &FrontendKey<A>) -> Destination {
    Destination { address: frontend.address.neutral(), port: u32::from(frontend.port) }
}

#[inline(always)]
fn given<A: Address>(backend: &Backend<A>) -> Destination {
    Destination { address: backend.address.neutral(), port: u32::from(backend.port) }
}
