//! Counts a call by its outcome, and logs it if `--datapath-log` asks for it. After `socket_notes`, before `outcome`.

use aya_log_ebpf::debug;
use portmap_common::{FrontendKey, UDP};

use crate::{
    decision::{Decision, Owner},
    maps::{self, Tables},
    outcome::Action,
    socket::Socket,
};

/// Counts a call in TOTALS, and in COUNTERS if it has a service entry. Calls that go on unchanged are not counted.
#[inline(always)]
pub fn count<A>(decision: &Decision<A>) {
    match (decision.found.owner, decision.outcome.action) {
        (_, Action::Leave) | (Owner::Other, _) => {}
        (Owner::Service, action) => count_service(decision.found.service, action),
        (Owner::UndefinedPort, _) => maps::count(|totals| totals.undefined_port += 1),
        (Owner::Unallocated, _) => maps::count(|totals| totals.unallocated += 1),
    }
}

/// Counts a call to a Service, by its action, in COUNTERS and TOTALS.
#[inline(always)]
pub fn count_service(number: u32, action: Action) {
    if let Some(counters) = maps::counters(number) {
        match action {
            Action::Leave => {}
            Action::Forward => counters.forwarded += 1,
            Action::Refuse => counters.refused += 1,
            Action::Drop => counters.dropped += 1,
        }
    }
    maps::count(|totals| match action {
        Action::Leave => {}
        Action::Forward => totals.forwarded += 1,
        Action::Refuse => totals.refused += 1,
        Action::Drop => totals.dropped += 1,
    });
}

/// Logs the decision and its reason, unless the owner is [`Owner::Other`]. Below level debug, the verifier removes this code.
#[inline(always)]
pub fn log<S: Socket<Address: Tables>>(socket: &S, frontend: &FrontendKey<S::Address>, decision: &Decision<S::Address>) {
    let context = socket.as_context();
    let (address, port, is_udp) = (frontend.address, frontend.port, u8::from(frontend.protocol == UDP));
    let backend = &decision.outcome.backend;
    match (decision.found.owner, decision.outcome.action) {
        (Owner::Service, Action::Forward) => {
            debug!(
                &context,
                "{:i} port {} udp {}: forwarded to {:i} port {}", address, port, is_udp, backend.address, backend.port
            );
        }
        (Owner::Service, Action::Refuse) => {
            debug!(&context, "{:i} port {} udp {}: refused, no endpoint can be used", address, port, is_udp);
        }
        (Owner::Service, Action::Drop) => {
            debug!(&context, "{:i} port {} udp {}: dropped, by a policy or a source range", address, port, is_udp);
        }
        (Owner::Service, Action::Leave) => {
            debug!(&context, "{:i} port {} udp {}: left alone, not for this client", address, port, is_udp);
        }
        (Owner::UndefinedPort, Action::Leave) => {
            debug!(&context, "{:i} port {} udp {}: left alone, the Service has no such port", address, port, is_udp);
        }
        (Owner::UndefinedPort, _) => {
            debug!(&context, "{:i} port {} udp {}: refused, the Service has no such port", address, port, is_udp);
        }
        (Owner::Unallocated, _) => {
            debug!(&context, "{:i} port {} udp {}: dropped, no Service has the address", address, port, is_udp);
        }
        (Owner::Other, _) => {}
    }
}
