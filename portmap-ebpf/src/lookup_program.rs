//! The look-up of the datapath as a program that user space can run (`BPF_PROG_TEST_RUN`): the hooks themselves cannot be.
//!
//! A packet is an array of probes; each question gets its answer, and nothing is counted.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macros make undocumented twins of the entry points")]
#![expect(clippy::needless_pass_by_value, reason = "the macros hand the context over by value")]
#![expect(clippy::inline_always, reason = "a program is one function: calls cost, and old verifiers check them apart")]

use core::mem::offset_of;

use aya_ebpf::{macros::classifier, programs::TcContext};
use portmap_common::{Choice, FrontendKey, PROBES, Probe, V4, V6};
use portmap_ebpf::{
    choice,
    decision::{self, Owner},
    maps::{self, Tables},
    outcome::{Action, Outcome},
};

/// Answers IPv4 probes.
#[classifier]
pub fn lookup4(context: TcContext) -> i32 {
    answer_all::<V4>(&context)
}

/// Answers IPv6 probes.
#[classifier]
pub fn lookup6(context: TcContext) -> i32 {
    answer_all::<V6>(&context)
}

/// Answers the probes that the packet has room for, and returns how many.
#[inline(always)]
fn answer_all<A: Tables>(context: &TcContext) -> i32 {
    let mut answered = 0;
    for index in 0..PROBES {
        if answer::<A>(context, index * size_of::<Probe<A>>()).is_none() {
            break;
        }
        answered += 1;
    }
    answered
}

/// Answers the probe at this offset of the packet, unless the packet ends before.
#[inline(always)]
fn answer<A: Tables>(context: &TcContext, probe: usize) -> Option<()> {
    let frontend = context.load(probe + offset_of!(Probe<A>, frontend)).ok()?;
    let decided = decide::<A>(&frontend);
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

/// What a client meets that nothing is known of, and nothing remembered.
#[inline(always)]
fn decide<A: Tables>(frontend: &FrontendKey<A>) -> Outcome<A> {
    let found = decision::find(frontend);
    match found.owner {
        Owner::Service => maps::inside_choice(found.service).map_or(Outcome::of(Action::Leave), pick),
        Owner::UndefinedPort => Outcome::of(Action::Refuse),
        Owner::Unallocated => Outcome::of(Action::Drop),
        Owner::Nobody => Outcome::of(Action::Leave),
    }
}

#[inline(always)]
fn pick<A: Tables>(choice: Choice) -> Outcome<A> {
    if choice.count == 0 {
        return Outcome::of(choice::verdict(choice));
    }
    choice::any(choice).map_or(Outcome::of(Action::Refuse), Outcome::forward)
}
