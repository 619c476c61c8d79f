//! The decision for a call: frontend → service → backend. After `scope`, before `socket_notes`.
//!
//! Reads the tables and the notes on the socket. Does not record the decision: it writes only AFFINITY and
//! `AFFINITY_SHARES`, the logical time of notes, and TOTALS for source ranges and session affinity.

use portmap_common::{
    ALLOCATED, Address, Backend, Description, FrontendKey, HOST_ONLY, OTHER_PROXY, SOURCE_RANGES, UDP, UNDEFINED_PORT,
};

use crate::{
    affinity, choice,
    maps::{self, Tables},
    outcome::{Action, Outcome},
    prefixes,
    socket::{Call, Socket},
    socket_notes, source_ranges,
};

/// The kind of owner of a destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The destination is a frontend of a Service.
    Service,
    /// A Service that portmap serves has the address as a ClusterIP and does not define the port.
    UndefinedPort,
    /// The address is in a ServiceCIDR, and no Service has it.
    Unallocated,
    /// Any other destination: it is not in the tables, or another proxy serves its Service.
    Other,
}

/// The owner of a destination, and the number of its service entry. Not an enum with fields: the compiler copies the fields of
/// all variants, and verifiers before 6.3 reject a copy of unwritten memory.
#[derive(Clone, Copy)]
pub struct Found {
    /// The kind of owner that the destination has.
    pub owner: Owner,
    /// The number of the service entry; 0 unless the owner is [`Owner::Service`].
    pub service: u32,
}

/// The decision for one call: input of `socket_notes`, `report` and `outcome`.
pub struct Decision<A> {
    /// The owner of the destination.
    pub found: Found,
    /// The outcome of the call.
    pub outcome: Outcome<A>,
    /// The id of the service port, to be noted with a backend that the socket's note does not have yet. [`NOTED`] if the note
    /// already has the backend, or if no backend was sought.
    pub id: u64,
}

/// The value of [`Decision::id`] if the socket's note already has the backend, or if no backend was sought. No service port has
/// this id. Not an `Option`, because a program has only 512 bytes of stack.
pub const NOTED: u64 = u64::MAX;

impl<A: Address> Decision<A> {
    /// Forwards the call to the backend, or refuses it if there is none. `None` is a slot outside of BACKENDS: the agent
    /// never stores such a range, but the verifier does not know this.
    #[inline(always)]
    fn forward(&mut self, backend: Option<Backend<A>>) {
        self.outcome.action = Action::Refuse;
        if let Some(backend) = backend {
            self.outcome.action = Action::Forward;
            self.outcome.backend = backend;
        }
    }
}

impl Found {
    /// An owner without a service entry.
    #[inline(always)]
    fn of(owner: Owner) -> Self {
        Self { owner, service: 0 }
    }
}

/// Decides the outcome of a socket's call to a destination, for sockets on this node.
#[inline(always)]
pub fn decide<S: Socket<Address: Tables>>(socket: &S, frontend: &FrontendKey<S::Address>, call: Call) -> Decision<S::Address> {
    let found = find(frontend);
    let mut decision = Decision { found, outcome: Outcome::of(Action::Leave), id: NOTED };
    match found.owner {
        Owner::Service => serve(socket, frontend, call, &mut decision),
        // `getaddrinfo()` of glibc connects a UDP socket to each address of a name with several addresses, to sort them. It
        // would sort refused addresses last.
        Owner::UndefinedPort if call == Call::Connect && frontend.protocol == UDP => {}
        Owner::UndefinedPort | Owner::Unallocated if was_given(socket, call) => {}
        Owner::UndefinedPort => decision.outcome.action = Action::Refuse,
        Owner::Unallocated => decision.outcome.action = Action::Drop,
        Owner::Other => {}
    }
    decision
}

/// The owner of a destination. Costs a look-up in FRONTENDS if a frontend has the port, and one more if the destination is no
/// frontend and its address is in a range of PREFIXES. Retries of [`maps::service_of`] are rare.
#[inline(always)]
pub fn find<A: Tables>(frontend: &FrontendKey<A>) -> Found {
    if maps::has_port(frontend)
        && let Some(number) = maps::service_of(frontend)
    {
        return Found { owner: Owner::Service, service: number };
    }
    let Some(flags) = prefixes::flags_of(frontend.address) else {
        return Found::of(Owner::Other);
    };
    Found::of(match maps::service_of(&frontend.of_address()) {
        Some(UNDEFINED_PORT) => Owner::UndefinedPort,
        Some(OTHER_PROXY) => Owner::Other,
        _ if flags & ALLOCATED != 0 => Owner::Unallocated,
        _ => Owner::Other,
    })
}

/// Decides a call to a frontend of a Service. An unconnected socket that sends datagrams to the frontend keeps its backend
/// while its note has the backend and the backend's endpoint serves.
#[inline(always)]
fn serve<S: Socket<Address: Tables>>(
    socket: &S,
    frontend: &FrontendKey<S::Address>,
    call: Call,
    decision: &mut Decision<S::Address>,
) {
    let Some(service) = maps::description(decision.found.service) else { return };
    if service.flags & HOST_ONLY != 0 && !socket.is_on_host() {
        return;
    }
    // Checked before the socket's notes are read: the call that wrote the notes may have had another source address.
    if service.flags & SOURCE_RANGES != 0 && !is_admitted(socket, frontend, call, service.id) {
        decision.outcome.action = Action::Drop;
        return;
    }
    if call == Call::Send {
        if let Some(backend) = socket_notes::last_backend(socket, frontend, service.id) {
            return decision.forward(Some(backend));
        }
        // The destination is the backend of an earlier decision. A backend's address may be a frontend of another Service.
        if was_given(socket, call) {
            return;
        }
        if let Some(backend) = socket_notes::former_backend(socket, frontend, service.id) {
            decision.id = service.id;
            return decision.forward(Some(backend));
        }
    }
    decision.id = service.id;
    choose(socket, &service, decision);
}

/// Whether the source ranges of a service port admit a call. The source address is read here, where `call` is a constant after
/// inlining. The verifier would reject a pointer to the source that is selected at run time.
#[inline(always)]
fn is_admitted<S: Socket<Address: Tables>>(socket: &S, frontend: &FrontendKey<S::Address>, call: Call, id: u64) -> bool {
    source_ranges::admit(socket.namespace(), &socket.source(call), &frontend.address, id)
}

/// Whether the call sends a datagram to a backend of an earlier decision for this socket. Such a destination may come from the
/// kernel instead of the process: see [`socket_notes::was_given`].
#[inline(always)]
fn was_given<S: Socket>(socket: &S, call: Call) -> bool {
    call == Call::Send && socket_notes::was_given(socket, &socket.destination())
}

/// Chooses a backend for a call that keeps no earlier backend. Without backends, the verdict of the choice is the action.
#[inline(always)]
fn choose<S: Socket<Address: Tables>>(socket: &S, service: &Description, decision: &mut Decision<S::Address>) {
    let Some(choice) = maps::inside_choice(decision.found.service) else { return };
    if choice.count == 0 {
        decision.outcome.action = choice::verdict(choice);
    } else if service.affinity_timeout != 0 {
        decision.forward(affinity::choose(socket.namespace(), service, choice));
    } else {
        decision.forward(choice::any(choice));
    }
}
