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
#[derive(Clone, Copy)]
pub enum Owner {
    /// The service with this number.
    Service(u32),
    /// A Service's address, at a port that it does not define.
    UndefinedPort,
    /// An address that Services are given, and none has.
    Unallocated,
    /// Not ours.
    Nobody,
}

/// What happens to a client's call.
pub enum Outcome<A> {
    /// Not ours, or left to another: the call goes on as it is.
    Leave,
    /// The call goes on to this backend.
    Forward(Backend<A>),
    /// The call fails as if nobody listened.
    Refuse,
    /// The call fails as if nobody answered.
    Drop,
}

/// A decision, and on whose behalf it was made.
pub struct Decision<A> {
    /// Whose the destination is.
    pub owner: Owner,
    /// What to do.
    pub outcome: Outcome<A>,
}

/// Decides what a socket on this node meets at a destination.
#[inline(always)]
pub fn decide<S: Socket<Address: Tables>>(socket: &S, frontend: &Frontend<S::Address>, call: Call) -> Decision<S::Address> {
    let owner = find(frontend);
    let outcome = match owner {
        Owner::Service(number) => serve(socket, frontend, call, number),
        // glibc sorts the addresses of a name by connecting a UDP socket to each: refused ones would come last.
        Owner::UndefinedPort if call == Call::Connect && frontend.protocol == UDP => Outcome::Leave,
        Owner::UndefinedPort => Outcome::Refuse,
        Owner::Unallocated => Outcome::Drop,
        Owner::Nobody => Outcome::Leave,
    };
    Decision { owner, outcome }
}

/// Whose the destination is: one look-up for a frontend, one for what lies in no prefix, two for the rest.
#[inline(always)]
pub fn find<A: Tables>(frontend: &Frontend<A>) -> Owner {
    if let Some(number) = maps::service_of(frontend) {
        return Owner::Service(number);
    }
    let Some(flags) = prefixes::flags_of(frontend.address) else {
        return Owner::Nobody;
    };
    match maps::service_of(&frontend.of_address()) {
        Some(UNDEFINED_PORT) => Owner::UndefinedPort,
        Some(OTHER_PROXY) => Owner::Nobody,
        _ if flags & ALLOCATED != 0 => Owner::Unallocated,
        _ => Owner::Nobody,
    }
}

/// What a client gets from a service. A socket that sends datagrams stays with its backend while that serves.
#[inline(always)]
fn serve<S: Socket<Address: Tables>>(socket: &S, frontend: &Frontend<S::Address>, call: Call, number: u32) -> Outcome<S::Address> {
    let Some(service) = maps::description(number) else {
        return Outcome::Leave;
    };
    if service.flags & HOST_ONLY != 0 && !socket.is_on_host() {
        return Outcome::Leave;
    }
    if call == Call::Connect {
        return choose(socket, call, number, &service);
    }
    if let Some(backend) = memory::last_backend(socket, frontend, service.id) {
        return Outcome::Forward(backend);
    }
    let outcome = choose(socket, call, number, &service);
    if let Outcome::Forward(backend) = &outcome {
        memory::sent(socket, frontend, service.id, backend);
    }
    outcome
}

/// What a client gets from a service that it is new to.
#[inline(always)]
fn choose<S: Socket<Address: Tables>>(socket: &S, call: Call, number: u32, service: &Description) -> Outcome<S::Address> {
    if service.flags & SOURCE_RANGES != 0 && !sources::admit(socket, call, service.id) {
        return Outcome::Drop;
    }
    let Some(choice) = maps::inside_choice(number) else {
        return Outcome::Leave;
    };
    if choice.count != 0 && service.affinity_timeout != 0 {
        return forward(affinity::choose(socket.namespace(), number, service, choice));
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
        Some(backend) => Outcome::Forward(backend),
        None => Outcome::Refuse,
    }
}

/// What a choice of no backend says instead.
#[inline(always)]
fn verdict<A: Address>(choice: Choice) -> Outcome<A> {
    const REFUSE: u32 = Verdict::Refuse as u32;
    const DROP: u32 = Verdict::Drop as u32;
    match choice.first {
        REFUSE => Outcome::Refuse,
        DROP => Outcome::Drop,
        _ => Outcome::Leave,
    }
}

#[inline(always)]
fn random() -> u32 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_get_prandom_u32() }
}
