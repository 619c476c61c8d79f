//! Writes an event about a call or a packet while `portmap trace` runs. After `report`.
//!
//! Without a tracer this costs one look-up in an array, which the kernel's compiler replaces by a load.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, RingBuf},
    helpers::generated::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid},
    macros::btf_map,
};
use portmap_common::{
    Backend, FrontendKey, capacity,
    trace::{COMMAND, CONNECT, DROPPED, FORWARDED, NO_ID, NO_SERVICE, NO_SUCH_PORT, REFUSED, SENDMSG, TraceEvent, Tracing},
};

use crate::{
    affinity::now,
    decision::{Decision, NOTED, Owner},
    maps::{self, Tables},
    outcome::Action,
    socket::Call,
};

const TRACE_BYTES: usize = capacity::TRACE as usize;

/// Whether programs write events.
#[btf_map]
pub static TRACING: Array<Tracing, 1> = Array::new();

/// Number of events that found no room in TRACE, per CPU.
#[btf_map]
pub static TRACE_LOST: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The events that no tracer has read yet.
#[btf_map]
pub static TRACE: RingBuf<TraceEvent, TRACE_BYTES> = RingBuf::new();

/// Writes an event about a call, unless it is no first one: a datagram to the backend of the socket's last datagram.
#[inline(always)]
pub fn call<A: Tables>(frontend: &FrontendKey<A>, call: Call, decision: &Decision<A>) {
    let Some(result) = result(decision.found.owner, decision.outcome.action) else { return };
    let is_first = call == Call::Connect || decision.id != NOTED || result != FORWARDED;
    if is_first && is_wanted(result) {
        let hook = if call == Call::Connect { CONNECT } else { SENDMSG };
        write_call(frontend, &decision.outcome.backend, decision.found.service, [hook, result]);
    }
}

/// Whether a tracer wants events with this result.
#[inline(always)]
pub fn is_wanted(result: u8) -> bool {
    let Some(tracing) = TRACING.get_ptr_mut(0) else { return false };
    // SAFETY: the map returned the value.
    let until = unsafe { &raw mut (*tracing).until };
    // SAFETY: the field is one aligned word.
    let time = unsafe { until.read_volatile() };
    if time == 0 {
        return false;
    }
    if time < now() {
        // SAFETY: as above. The tracer has ended.
        unsafe { until.write_volatile(0) };
        return false;
    }
    // SAFETY: the map returned the value, and any word is valid.
    let results = unsafe { (*tracing).results };
    results & 1 << result != 0
}

/// The result of an event; `None` for calls that go on unchanged.
#[inline(always)]
fn result(owner: Owner, action: Action) -> Option<u8> {
    match (owner, action) {
        (_, Action::Leave) | (Owner::Other, _) => None,
        (Owner::Service, Action::Forward) => Some(FORWARDED),
        (Owner::Service, Action::Refuse) => Some(REFUSED),
        (Owner::Service, Action::Drop) => Some(DROPPED),
        (Owner::UndefinedPort, _) => Some(NO_SUCH_PORT),
        (Owner::Unallocated, _) => Some(NO_SERVICE),
    }
}

/// Writes an event about a call. `hook_and_result` are two fields of the event. Not inlined: it runs only while somebody traces.
#[inline(never)]
fn write_call<A: Tables>(frontend: &FrontendKey<A>, backend: &Backend<A>, service: u32, hook_and_result: [u8; 2]) {
    write(|event| {
        [event.hook, event.result] = hook_and_result;
        (event.asked, event.asked_port, event.protocol) = (frontend.address.neutral(), frontend.port, frontend.protocol);
        if event.result == FORWARDED {
            (event.backend, event.backend_port) = (backend.address.neutral(), backend.port);
        }
        event.id = id_of(service, event.result);
        // SAFETY: the helpers take no argument.
        event.cgroup = unsafe { bpf_get_current_cgroup_id() };
        // SAFETY: as above.
        event.process = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
        // SAFETY: the helper writes at most this number of bytes, with a 0 byte at the end.
        unsafe { bpf_get_current_comm(event.command.as_mut_ptr().cast(), COMMAND) };
    });
}

/// The id of a service port; [`NO_ID`] if the result concerns none.
#[inline(always)]
pub fn id_of(service: u32, result: u8) -> u64 {
    if result == NO_SUCH_PORT || result == NO_SERVICE {
        return NO_ID;
    }
    maps::description(service).map_or(NO_ID, |service| service.id)
}

/// Writes an event that `fill` completes. Without room, it is counted as lost.
#[inline(always)]
pub fn write(fill: impl FnOnce(&mut TraceEvent)) {
    let Some(mut entry) = TRACE.reserve(0) else { return count_lost() };
    let event = entry.write(TraceEvent::default());
    event.time = now();
    fill(event);
    entry.submit(0);
}

#[inline(always)]
fn count_lost() {
    if let Some(lost) = TRACE_LOST.get_ptr_mut(0) {
        // SAFETY: the value belongs to this CPU. A program that is preempted by another may lose a count.
        unsafe { *lost += 1 };
    }
}
