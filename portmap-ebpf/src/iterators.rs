//! Lists the UDP sockets that were connected to an endpoint that no longer serves, by the notes on sockets. The agent destroys
//! those that are still connected.
//!
//! The programs are BPF iterators: they run only when the agent reads from them, so they slow down no call. `stale` walks
//! through the notes, `stale_udp` through the UDP sockets of a network namespace. The agent chooses one by the kernel's
//! version.
#![no_std]
#![no_main]
#![expect(clippy::inline_always, reason = "a program is one function: calls are slow, and old verifiers check them separately")]

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::seq_file,
    helpers::generated::{bpf_seq_write, bpf_sk_storage_get},
};
use portmap_common::{BEING_WRITTEN, Connected, EndedSocketRecord, V4, V6};
use portmap_ebpf::{
    maps::{self, SOCKETS, Tables},
    socket_notes,
};

#[expect(clippy::cast_possible_truncation, reason = "the size of a record fits into 32 bits")]
const RECORD: u32 = size_of::<EndedSocketRecord>() as u32;

/// The kernel's `struct bpf_iter__bpf_sk_storage_map`: one element of a socket storage map. Each pointer takes 8 bytes.
#[repr(C)]
pub struct Element {
    meta: *const Meta,
    map: *const c_void,
    socket: *const c_void,
    note: *const Connected,
}

/// The first fields of the kernel's `struct bpf_iter__udp`: one UDP socket.
#[repr(C)]
pub struct UdpSocket {
    meta: *const Meta,
    socket: *mut c_void,
}

/// The first field of the kernel's `struct bpf_iter_meta`.
#[repr(C)]
struct Meta {
    output: *mut seq_file,
}

/// Writes an [`EndedSocketRecord`] if the note is of a UDP socket that was connected to a Service, and its endpoint no longer
/// serves: see `record`. Returns 0: the kernel goes on to the next element.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/stale")]
pub extern "C" fn stale(element: &Element) -> i32 {
    // SAFETY: the kernel passes a note that is null or lives until the program returns.
    write(element.meta, unsafe { element.note.as_ref() })
}

/// Like [`stale`], for each UDP socket of a network namespace instead of each note.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/stale_udp")]
pub extern "C" fn stale_udp(element: &UdpSocket) -> i32 {
    // After the last socket, the kernel calls the program once more without a socket.
    if element.socket.is_null() {
        return 0;
    }
    // SAFETY: SOCKETS is a socket storage map, and the socket is valid until the program returns.
    let note = unsafe { bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), element.socket, ptr::null_mut(), 0) };
    // SAFETY: the helper returns a note of SOCKETS that lives until the program returns, or null.
    write(element.meta, unsafe { note.cast::<Connected>().as_ref() })
}

/// Writes the record of a note, if there is one, to the iterator's output. Returns the program's return value.
#[inline(always)]
fn write(meta: *const Meta, note: Option<&Connected>) -> i32 {
    if let Some(record) = note.and_then(record) {
        // SAFETY: the kernel gives every iterator valid metadata.
        let output = unsafe { (*meta).output };
        // SAFETY: the record is on the stack and has this size. If the output has no room, the kernel repeats the element
        // later.
        unsafe { bpf_seq_write(output, (&raw const record).cast(), RECORD) };
    }
    0
}

/// The record of a note. `None` if the note is not of a UDP socket that was connected to a Service, if a later direct
/// connection to the same address has ended it, if the endpoint still serves, or if another thread writes the note during this
/// call. The agent checks whether the socket is still connected.
#[inline(always)]
fn record(note: &Connected) -> Option<EndedSocketRecord> {
    let endpoint = socket_notes::read(&note.endpoint);
    let record = EndedSocketRecord { cookie: note.cookie, namespace: note.namespace, asked: note.asked, given: note.given };
    let is_tracked = record.cookie != 0 && record.given.port != 0 && endpoint.number != BEING_WRITTEN;
    if !is_tracked || serves::<V4>(&record, endpoint.number) || serves::<V6>(&record, endpoint.number) {
        return None;
    }
    // If another thread has connected the socket again meanwhile, the backend does not belong to this endpoint.
    (socket_notes::read(&note.endpoint) == endpoint).then_some(record)
}

/// Whether the record's backend is of this family and the endpoint with this number still serves.
#[inline(always)]
fn serves<A: Tables>(record: &EndedSocketRecord, endpoint: u64) -> bool {
    A::is_family_of(record.given.address) && maps::endpoint::<A>(endpoint).is_some()
}
