//! The decision for a call: frontend → service → backend. Reads the tables and the notes on the socket, and writes neither. After
//! `scope`, before `socket_notes`.

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

/// Who has a destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A Service has the address and defines the port.
    Service,
    /// A Service has the address and does not define the port.
    UndefinedPort,
    /// The address is in a ServiceCIDR, and no Service has it.
    Unallocated,
    /// The destination is not in the tables.
    Nobody,
}

/// The owner of a destination, and the number of its service entry. Not an enum with fields: see [`Outcome`].
#[derive(Clone, Copy)]
pub struct Found {
    /// The owner.
    pub owner: Owner,
    /// The number of the service entry; 0 unless the owner is [`Owner::Service`].
    pub service: u32,
}

/// A decision.
pub struct Decision<A> {
    /// The owner of the destination.
    pub found: Found,
    /// The outcome of the call.
    pub outcome: Outcome<A>,
    /// The id of the service port that the backend was chosen for, if the socket has no note of it yet; else [`NOTED`].
    pub id: u64,
}

/// In place of an id: there is nothing to note. No service port has this id. Not an `Option`: programs have 512 bytes of stack.
pub const NOTED: u64 = u64::MAX;

impl<A: Address> Decision<A> {
    /// Forwards to a backend that the socket has a note of. `None`: the verifier cannot know that the agent never stores a range that
    /// leaves the map.
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
    #[inline(always)]
    fn of(owner: Owner) -> Self {
        Self { owner, service: 0 }
    }
}

/// Decides a call of a socket on this node.
#[inline(always)]
pub fn decide<S: Socket<Address: Tables>>(socket: &S, frontend: &FrontendKey<S::Address>, call: Call) -> Decision<S::Address> {
    let found = find(frontend);
    let mut decision = Decision { found, outcome: Outcome::of(Action::Leave), id: NOTED };
    match found.owner {
        Owner::Service => serve(socket, frontend, call, &mut decision),
        // glibc sorts the addresses of a name by connecting a UDP socket to each: refused addresses would come last.
        Owner::UndefinedPort if call == Call::Connect && frontend.protocol == UDP => {}
        Owner::UndefinedPort | Owner::Unallocated if was_given(socket, call) => {}
        Owner::UndefinedPort => decision.outcome.action = Action::Refuse,
        Owner::Unallocated => decision.outcome.action = Action::Drop,
        Owner::Nobody => {}
    }
    decision
}

/// The owner of a destination. Costs one look-up for a frontend, one for an address outside of all prefixes, two otherwise.
#[inline(always)]
pub fn find<A: Tables>(frontend: &FrontendKey<A>) -> Found {
    if let Some(number) = maps::service_of(frontend) {
        return Found { owner: Owner::Service, service: number };
    }
    let Some(flags) = prefixes::flags_of(frontend.address) else {
        return Found::of(Owner::Nobody);
    };
    Found::of(match maps::service_of(&frontend.of_address()) {
        Some(UNDEFINED_PORT) => Owner::UndefinedPort,
        Some(OTHER_PROXY) => Owner::Nobody,
        _ if flags & ALLOCATED != 0 => Owner::Unallocated,
        _ => Owner::Nobody,
    })
}

/// Decides a call to a service. A socket that sends datagrams keeps its backend while the backend serves.
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
    // Before the notes: the last call, which they are of, may have had another source address.
    if service.flags & SOURCE_RANGES != 0 && !is_admitted(socket, frontend, call, service.id) {
        decision.outcome.action = Action::Drop;
        return;
    }
    if call == Call::Send {
        if let Some(backend) = socket_notes::last_backend(socket, frontend, service.id) {
            return decision.forward(Some(backend));
        }
        // The address of a pod may be a frontend of another Service.
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

/// Whether the source ranges of a service port admit a call. The source is read here, where the kind of call is known at compile
/// time: chosen at run time, the verifier would reject the pointer to it.
#[inline(always)]
fn is_admitted<S: Socket<Address: Tables>>(socket: &S, frontend: &FrontendKey<S::Address>, call: Call, id: u64) -> bool {
    source_ranges::admit(socket.namespace(), &socket.source(call), &frontend.address, id)
}

/// Whether a datagram goes to an address that an earlier decision gave to the socket.
#[inline(always)]
fn was_given<S: Socket>(socket: &S, call: Call) -> bool {
    call == Call::Send && socket_notes::was_given(socket, &socket.destination())
}

/// Chooses a backend for a socket that has none.
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
