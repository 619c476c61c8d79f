//! The notes on sockets (SOCKETS and DATAGRAMS): the frontend that a socket asked for, and the backend that it was given.
//! After `decision`, before `report`.
//!
//! `reverse` shows the frontend to the client. `decision` keeps the backend of an unconnected UDP socket. The notes are in the
//! socket's own storage and end with it, so there is no table of connections that can overflow or must be cleaned.

use portmap_common::{
    ANSWERED, Address, BEING_WRITTEN, Backend, CALL, Chosen, Datagrams, Destination, Flow, FrontendKey, TCP, UDP,
};

use crate::{
    decision::{Decision, NOTED},
    maps::{self, DATAGRAMS, Notes as _, SOCKETS, Tables},
    outcome::Action,
    socket::{Call, Socket},
    switches::NOTES_TCP,
};

/// Records a decision on the socket. Only this function writes frontends and backends into notes.
#[inline(always)]
pub fn record<S: Socket>(socket: &S, frontend: &FrontendKey<S::Address>, call: Call, decision: &Decision<S::Address>) {
    let Decision { outcome, id, found: _ } = decision;
    match (outcome.action, call) {
        (Action::Forward, Call::Connect) => connected(socket, frontend, *id, &outcome.backend),
        (Action::Forward, Call::Send) if *id != NOTED => sent(socket, frontend, *id, &outcome.backend),
        (Action::Leave, Call::Connect) => connected_untranslated(socket),
        (Action::Leave, Call::Send) => sent_untranslated(socket, &socket.destination()),
        (Action::Forward | Action::Refuse | Action::Drop, _) => {}
    }
}

/// Notes the frontend that a socket asks for, and the backend that it will be connected to. A TCP socket gets no note if
/// `NOTES_TCP` is 0. The note of a UDP socket also has its cookies, by which the agent finds the socket of an ended endpoint.
#[inline(always)]
fn connected<S: Socket>(socket: &S, frontend: &FrontendKey<S::Address>, id: u64, backend: &Backend<S::Address>) {
    if NOTES_TCP.load() == 0 && frontend.protocol == TCP {
        return;
    }
    let Some(note) = SOCKETS.create(&socket.as_context()) else {
        return maps::count(|totals| totals.forgotten_sockets += 1);
    };
    // The iterators may read the note now. They must not combine the new backend with the old endpoint.
    begin_write(&mut note.endpoint);
    note.asked = asked(frontend);
    note.given = given(backend);
    if frontend.protocol == UDP {
        note.cookie = socket.cookie();
        note.namespace = socket.namespace();
    }
    end_write(&mut note.endpoint, Chosen::new(backend.endpoint.get(), frontend, id));
}

/// Notes that a call connects a socket to an address without translation. If this address is the backend in the note,
/// `getpeername()` returns it untranslated from now on.
///
/// A note with another backend stays: readers compare it with the peer, and if the call fails, the old connection remains.
#[inline(always)]
fn connected_untranslated<S: Socket>(socket: &S) {
    if let Some(note) = SOCKETS.find(&socket.as_context())
        && note.given.is(&socket.destination())
    {
        note.given.port = 0;
    }
}

/// The frontend that a connected socket asked for, if `peer` is the backend in its note.
#[inline(always)]
pub fn asked_of_peer<S: Socket>(socket: &S, peer: &Destination) -> Option<Destination> {
    let note = SOCKETS.find(&socket.as_context())?;
    note.given.is(peer).then_some(note.asked)
}

/// The backend of the socket's last datagram to this frontend of the service port with this `id`. `None` if no note has it any
/// more, or if its endpoint no longer serves.
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

/// The backend in the note of a socket that was connected to this frontend of the service port with this `id`. `None` without
/// such a note, or if its endpoint no longer serves. If the process has since disconnected the socket (`connect()` with
/// `AF_UNSPEC`), an `AF_INET6` socket still receives only from that peer.
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

/// The backend of an endpoint, if it was chosen for this frontend of this service port and still serves.
#[inline(always)]
fn serving<A: Tables>(frontend: &FrontendKey<A>, id: u64, endpoint: Chosen) -> Option<Backend<A>> {
    if endpoint.is_for(frontend, id) { maps::endpoint(endpoint.number) } else { None }
}

/// Notes that the socket's datagrams to this frontend go to this backend from now on.
#[inline(always)]
fn sent<S: Socket>(socket: &S, frontend: &FrontendKey<S::Address>, id: u64, backend: &Backend<S::Address>) {
    let Some(notes) = DATAGRAMS.create(&socket.as_context()) else {
        return maps::count(|totals| totals.forgotten_sockets += 1);
    };
    let asked = asked(frontend);
    let clock = tick(notes);
    if let Some(flow) = flow_for(notes, &asked) {
        // Another thread may read the flow now. It must not combine the endpoint and the frontend of different flows.
        begin_write(&mut flow.endpoint);
        flow.used = clock;
        flow.asked = asked;
        flow.given = given(backend);
        end_write(&mut flow.endpoint, Chosen::new(backend.endpoint.get(), frontend, id));
    }
}

/// Notes that the process itself sends to a backend's address: answers from there keep that address from now on.
///
/// This applies only after an answer. Before, the call may come from the kernel: `io_uring` repeats a datagram that did not
/// fit, with the address that the first attempt was given.
#[inline(always)]
fn sent_untranslated<S: Socket>(socket: &S, destination: &Destination) {
    if let Some(notes) = DATAGRAMS.find(&socket.as_context()) {
        for flow in &mut notes.flows {
            if flow.used & ANSWERED != 0 && flow.given.is(destination) {
                flow.used = 0;
            }
        }
    }
}

/// Whether the destination is a backend that an earlier decision gave to this socket. The process may name this address itself,
/// but usually the kernel passes it.
///
/// For a connected `AF_INET6` socket, the kernel passes an IPv4-mapped peer with each datagram. For an unconnected socket,
/// `io_uring` passes the backend again with a datagram that it repeats.
#[inline(always)]
pub fn was_given<S: Socket>(socket: &S, destination: &Destination) -> bool {
    if socket.is_connected() {
        return asked_of_peer(socket, destination).is_some();
    }
    let Some(notes) = DATAGRAMS.find(&socket.as_context()) else { return false };
    notes.flows.iter().any(|flow| flow.used & ANSWERED == 0 && flow.used != 0 && flow.given.is(destination))
}

/// The frontend for which the socket last sent to this backend; `None` without such a flow, or if another thread replaces the
/// flow meanwhile. Marks the flow as answered.
#[inline(always)]
pub fn asked_of_sender<S: Socket>(socket: &S, sender: &Destination) -> Option<Destination> {
    let notes = DATAGRAMS.find(&socket.as_context())?;
    // Not an `Option`: verifiers before 6.3 reject a copy of uninitialized memory, even if its value is not used.
    let (mut used, mut asked) = (0, Destination { address: [0; 4], port: 0 });
    for flow in &notes.flows {
        let before = read(&flow.endpoint);
        if flow.used > used && flow.given.is(sender) {
            let found = flow.asked;
            // Another thread may have replaced the flow meanwhile.
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

/// The flow to this frontend, else the flow that was unused for longest.
#[inline(always)]
fn flow_for<'a>(notes: &'a mut Datagrams, asked: &Destination) -> Option<&'a mut Flow> {
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

/// Advances the logical clock of the notes by one step, and returns it.
#[inline(always)]
fn tick(notes: &mut Datagrams) -> u64 {
    notes.clock = notes.clock.wrapping_add(CALL);
    notes.clock
}

/// Reads the endpoint of a note word by word, because another thread may write it at the same time.
#[inline(always)]
pub fn read(endpoint: &Chosen) -> Chosen {
    let number = &raw const endpoint.number;
    let check = &raw const endpoint.check;
    // SAFETY: the field is one aligned 8-byte word of a note.
    let number = unsafe { number.read_volatile() };
    // SAFETY: as above.
    let check = unsafe { check.read_volatile() };
    Chosen { number, check }
}

/// Called before the other fields of a note are written: until [`end_write`], readers find the number [`BEING_WRITTEN`],
/// which no endpoint has.
#[inline(always)]
fn begin_write(endpoint: &mut Chosen) {
    let number = &raw mut endpoint.number;
    // SAFETY: the field is one aligned 8-byte word of a note.
    unsafe { number.write_volatile(BEING_WRITTEN) };
}

/// Called after the other fields of a note were written: stores the new endpoint, with its number last.
#[inline(always)]
fn end_write(endpoint: &mut Chosen, new: Chosen) {
    let (number, check) = (&raw mut endpoint.number, &raw mut endpoint.check);
    // SAFETY: the field is one aligned 8-byte word of a note.
    unsafe { check.write_volatile(new.check) };
    // SAFETY: as above.
    unsafe { number.write_volatile(new.number) };
}

/// The address and port of a frontend, as notes hold them.
#[inline(always)]
fn asked<A: Address>(frontend: &FrontendKey<A>) -> Destination {
    Destination { address: frontend.address.neutral(), port: u32::from(frontend.port) }
}

/// The address and port of a backend, as notes hold them.
#[inline(always)]
fn given<A: Address>(backend: &Backend<A>) -> Destination {
    Destination { address: backend.address.neutral(), port: u32::from(backend.port) }
}
