//! For tests and measurements only: the datapath's look-up as programs that user space can run. The agent never loads them.
//!
//! `BPF_PROG_TEST_RUN` cannot run the hooks themselves. It runs these programs, of type classifier, on a packet: an array of
//! probes. The program writes the outcome into each probe. It ignores session affinity, source ranges, restrictions to the
//! host's clients, and notes on sockets. Two of the programs count the answers as the hooks do, the others count nothing.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macros generate undocumented copies of the entry points")]
#![expect(clippy::needless_pass_by_value, reason = "the macros pass the context by value")]
#![expect(clippy::inline_always, reason = "a program is one function: calls are slow, and old verifiers check them separately")]

use core::mem::offset_of;

use aya_ebpf::{macros::classifier, programs::TcContext};
use portmap_common::{Choice, FrontendKey, PROBES, Probe, V4, V6};
use portmap_ebpf::{
    choice,
    decision::{self, Owner},
    maps::{self, Tables},
    outcome::{Action, Outcome},
    report,
};

/// Answers a packet of IPv4 probes. Returns the number of answers.
#[classifier]
pub fn lookup4(context: TcContext) -> i32 {
    answer_all::<V4, false>(&context)
}

/// Answers a packet of IPv6 probes. Returns the number of answers.
#[classifier]
pub fn lookup6(context: TcContext) -> i32 {
    answer_all::<V6, false>(&context)
}

/// As [`lookup4`], and counts each answer for its Service.
#[classifier]
pub fn counted4(context: TcContext) -> i32 {
    answer_all::<V4, true>(&context)
}

/// As [`lookup6`], and counts each answer for its Service.
#[classifier]
pub fn counted6(context: TcContext) -> i32 {
    answer_all::<V6, true>(&context)
}

/// Answers the probes in the packet, at most [`PROBES`], and returns their number.
#[inline(always)]
fn answer_all<A: Tables, const COUNTS: bool>(context: &TcContext) -> i32 {
    let mut answered = 0;
    for index in 0..PROBES {
        if answer::<A, COUNTS>(context, index * size_of::<Probe<A>>()).is_none() {
            break;
        }
        answered += 1;
    }
    answered
}

/// Answers the probe at this offset of the packet; `None` if the packet ends before the probe does, or cannot be written.
#[inline(always)]
fn answer<A: Tables, const COUNTS: bool>(context: &TcContext, probe: usize) -> Option<()> {
    let frontend = context.load(probe + offset_of!(Probe<A>, frontend)).ok()?;
    let decided = decide::<A, COUNTS>(&frontend);
    let outcome: u32 = match decided.action {
        Action::Leave => 0,
        Action::Forward => {
            context.store(probe + offset_of!(Probe<A>, backend), &decided.backend, 0).ok()?;
            1
        }
        Action::Refuse => 2,
        Action::Drop => 3,
    };
    context.store(probe + offset_of!(Probe<A>, outcome), &outcome, 0).ok()
}

/// The outcome of a call from a socket without notes. Session affinity and all restrictions to certain clients are ignored.
/// A UDP call is decided as a datagram, not as a `connect()`: a port that the Service does not define is refused, although
/// the hooks leave a UDP `connect()` to such a port unchanged.
#[inline(always)]
fn decide<A: Tables, const COUNTS: bool>(frontend: &FrontendKey<A>) -> Outcome<A> {
    let found = decision::find(frontend);
    match found.owner {
        Owner::Service => {
            let outcome = maps::inside_choice(found.service).map_or(Outcome::of(Action::Leave), pick);
            if COUNTS {
                report::count_service(found.service, outcome.action);
            }
            outcome
        }
        Owner::UndefinedPort => Outcome::of(Action::Refuse),
        Owner::Unallocated => Outcome::of(Action::Drop),
        Owner::Other => Outcome::of(Action::Leave),
    }
}

/// The outcome of a choice: forwarding to a random backend, or the verdict of a choice without backends.
#[inline(always)]
fn pick<A: Tables>(choice: Choice) -> Outcome<A> {
    if choice.count == 0 {
        return Outcome::of(choice::verdict(choice));
    }
    choice::any(choice).map_or(Outcome::of(Action::Refuse), Outcome::forward)
}
