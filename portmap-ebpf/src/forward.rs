//! From a destination to a decision: frontend → service → backend.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use portmap_common::{
    ALLOCATED, Address, Backend, Choice, Description, Frontend, HOST_ONLY, OTHER_PROXY, SOURCE_RANGES, UDP, UNDEFINED_PORT,
    Verdict,
};

use crate::{
    affinity,
    maps::{self, Tables},
    memory, prefixes,
    socket::{Call, Socket},
    sources,
};

/// Whose a destination is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A service's.
    Service,
    /// A Service's address, at a port that it does not define.
    UndefinedPort,
    /// An address that Services are given, and none has.
    Unallocated,
    /// Not ours.
    Nobody,
}

/// What happens to a client's call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Not ours, or left to another: the call goes on as it is.
    Leave,
    /// The call goes on to a backend.
    Forward,
    /// The call fails as if nobody listened.
    Refuse,
    /// The call fails as if nobody answered.
    Drop,
}

/// Whose a destination is, and the number of the service.
///
/// This and [`Outcome`] are no enums with fields: of those, the compiler copies the fields of the other variants as well, and the
/// verifier does not let a program copy what it has not set.
#[derive(Clone, Copy)]
pub struct Found {
    /// Whose.
    pub owner: Owner,
    /// The service's number; 0 of others.
    pub service: u32,
}

/// What happens to a client's call, and where it goes on.
#[derive(Clone, Copy)]
pub struct Outcome<A> {
    /// What.
    pub action: Action,
    /// The backend to forward to; zeroes otherwise.
    pub backend: Backend<A>,
}

/// A decision, and on whose behalf it was made.
pub struct Decision<A> {
    /// Whose the destination is.
    pub found: Found,
    /// What to do.
    pub outcome: Outcome<A>,
}

impl<A: Address> Outcome<A> {
    /// Anything but forwarding.
    #[inline(always)]
    pub fn of(action: Action) -> Self {
        Self { action, backend: Backend::default() }
    }

    /// Forwarding.
    #[inline(always)]
    pub fn forward(backend: Backend<A>) -> Self {
        Self { action: Action::Forward, backend }
    }
}

impl Found {
    #[inline(always)]
    fn of(owner: Owner) -> Self {
        Self { owner, service: 0 }
    }
}

/// Decides what a socket on this node meets at a destination.
#[inline(always)]
pub fn decide<S: Socket<Address: Tables>>(socket: &S, frontend: &Frontend<S::Address>, call: Call) -> Decision<S::Address> {
    let found = find(frontend);
    let outcome = match found.owner {
        Owner::Service => serve(socket, frontend, call, found.service),
        // glibc sorts the addresses of a name by connecting a UDP socket to each: refused ones would come last.
        Owner::UndefinedPort if call == Call::Connect && frontend.protocol == UDP => Outcome::of(Action::Leave),
        Owner::UndefinedPort | Owner::Unallocated if was_given(socket, call) => Outcome::of(Action::Leave),
        Owner::UndefinedPort => Outcome::of(Action::Refuse),
        Owner::Unallocated => Outcome::of(Action::Drop),
        Owner::Nobody => Outcome::of(Action::Leave),
    };
    Decision { found, outcome }
}

/// Whose the destination is: one look-up for a frontend, one for what lies in no prefix, two for the rest.
#[inline(always)]
pub fn find<A: Tables>(frontend: &Frontend<A>) -> Found {
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

/// What a client gets from a service, noted on its socket. One that sends datagrams stays with its backend while that serves.
#[inline(always)]
fn serve<S: Socket<Address: Tables>>(
    socket: &S,
    frontend: &Frontend<S::Address>,
    call: Call,
    number: u32,
) -> Outcome<S::Address> {
    let Some(service) = maps::description(number) else {
        return Outcome::of(Action::Leave);
    };
    if service.flags & HOST_ONLY != 0 && !socket.is_on_host() {
        return Outcome::of(Action::Leave);
    }
    // Before anything that is remembered counts: it was noted for a call from another address, perhaps.
    if service.flags & SOURCE_RANGES != 0 && !sources::admit(socket, call, frontend.address, service.id) {
        return Outcome::of(Action::Drop);
    }
    if call == Call::Connect {
        let outcome = choose(socket, number, &service);
        if outcome.action == Action::Forward {
            memory::connected(socket, frontend, service.id, &outcome.backend);
        }
        return outcome;
    }
    if let Some(backend) = memory::last_backend(socket, frontend, service.id) {
        return Outcome::forward(backend);
    }
    // A pod's address that is a frontend of another Service, too.
    if was_given(socket, call) {
        return Outcome::of(Action::Leave);
    }
    let outcome = match memory::former_backend(socket, frontend, service.id) {
        Some(backend) => Outcome::forward(backend),
        None => choose(socket, number, &service),
    };
    if outcome.action == Action::Forward {
        memory::sent(socket, frontend, service.id, &outcome.backend);
    }
    outcome
}

/// Whether a datagram goes to an address that the socket was given by an earlier decision.
#[inline(always)]
fn was_given<S: Socket>(socket: &S, call: Call) -> bool {
    call == Call::Send && memory::was_given(socket, &socket.destination())
}

/// What a client gets from a service that it is new to.
#[inline(always)]
fn choose<S: Socket<Address: Tables>>(socket: &S, number: u32, service: &Description) -> Outcome<S::Address> {
    let Some(choice) = maps::inside_choice(number) else {
        return Outcome::of(Action::Leave);
    };
    if choice.count != 0 && service.affinity_timeout != 0 {
        return forward(affinity::choose(socket.namespace(), service, choice));
    }
    pick(choice)
}

/// One of the choice's backends, each equally likely, or what it says instead.
#[inline(always)]
pub fn pick<A: Tables>(choice: Choice) -> Outcome<A> {
    if choice.count == 0 { verdict(choice) } else { forward(any(choice)) }
}

/// Any of the choice's backends, each equally likely.
#[inline(always)]
pub fn any<A: Tables>(choice: Choice) -> Option<Backend<A>> {
    A::backend(choice.slot(random())).copied()
}

/// The agent never stores a range that leaves the map; the verifier cannot know.
#[inline(always)]
fn forward<A: Address>(backend: Option<Backend<A>>) -> Outcome<A> {
    match backend {
        Some(backend) => Outcome::forward(backend),
        None => Outcome::of(Action::Refuse),
    }
}

/// What a choice of no backend says instead.
#[inline(always)]
fn verdict<A: Address>(choice: Choice) -> Outcome<A> {
    const REFUSE: u32 = Verdict::Refuse as u32;
    const DROP: u32 = Verdict::Drop as u32;
    Outcome::of(match choice.first {
        REFUSE => Action::Refuse,
        DROP => Action::Drop,
        _ => Action::Leave,
    })
}

#[inline(always)]
fn random() -> u32 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_get_prandom_u32() }
}
