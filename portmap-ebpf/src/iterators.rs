//! Lists the connected UDP sockets whose endpoint is not among those that serve, by the notes on sockets: BPF iterators, which run
//! when the agent reads from them, and cost a connection nothing. One walks through the notes, the other through the UDP sockets of a
//! network namespace; the agent knows which of them a kernel can bear.
#![no_std]
#![no_main]
#![expect(clippy::inline_always, reason = "a program is one function: calls cost, and old verifiers check them apart")]

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::seq_file,
    helpers::generated::{bpf_seq_write, bpf_sk_storage_get},
};
use portmap_common::{Connected, EndedSocketRecord, BEING_WRITTEN, V4, V6};
use portmap_ebpf::{
    maps::{self, SOCKETS, Tables},
    socket_notes,
};

#[expect(clippy::cast_possible_truncation, reason = "a record is small")]
const RECORD: u32 = size_of::<EndedSocketRecord>() as u32;

/// The kernel's `struct bpf_iter__bpf_sk_storage_map`: one element of a socket storage map. Every pointer takes 8 bytes.
#[repr(C)]
pub struct Element {
    meta: *const Meta,
    map: *const c_void,
    socket: *const c_void,
    note: *const Connected,
}

/// The kernel's `struct bpf_iter__udp`: a UDP socket.
#[repr(C)]
pub struct UdpSocket {
    meta: *const Meta,
    socket: *mut c_void,
}

/// The kernel's `struct bpf_iter_meta`.
#[repr(C)]
struct Meta {
    output: *mut seq_file,
}

/// Writes a [`EndedSocketRecord`] for the element, if it is one. Returns 0: the next element, please.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/stale")]
pub extern "C" fn stale(element: &Element) -> i32 {
    // SAFETY: the note is null, or lives until the program returns.
    tell(element.meta, unsafe { element.note.as_ref() })
}

/// As [`stale`], for the note on the socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/stale_udp")]
pub extern "C" fn stale_udp(element: &UdpSocket) -> i32 {
    // The last call is for none.
    if element.socket.is_null() {
        return 0;
    }
    // SAFETY: the map is one of notes on sockets, and the socket is valid until the program returns.
    let note = unsafe { bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), element.socket, ptr::null_mut(), 0) };
    // SAFETY: the note is null, or lives until the program returns.
    tell(element.meta, unsafe { note.cast::<Connected>().as_ref() })
}

#[inline(always)]
fn tell(meta: *const Meta, note: Option<&Connected>) -> i32 {
    if let Some(found) = note.and_then(judge) {
        // SAFETY: the kernel hands every iterator valid metadata.
        let output = unsafe { (*meta).output };
        // SAFETY: the record lies on the stack and has that size. Without room the kernel asks for the element again.
        unsafe { bpf_seq_write(output, (&raw const found).cast(), RECORD) };
    }
    0
}

/// What to tell of a note; none if its socket is not connected by UDP, or to an endpoint that serves.
#[inline(always)]
fn judge(note: &Connected) -> Option<EndedSocketRecord> {
    let endpoint = socket_notes::read(&note.endpoint);
    let found = EndedSocketRecord { cookie: note.cookie, namespace: note.namespace, asked: note.asked, given: note.given };
    let is_tracked = found.cookie != 0 && found.given.port != 0 && endpoint.number != BEING_WRITTEN;
    if !is_tracked || serves::<V4>(&found, endpoint.number) || serves::<V6>(&found, endpoint.number) {
        return None;
    }
    // The socket may be connected anew at this moment: then the backend is not that endpoint's.
    (socket_notes::read(&note.endpoint) == endpoint).then_some(found)
}

/// Whether the endpoint is one of this family that serves.
#[inline(always)]
fn serves<A: Tables>(found: &EndedSocketRecord, endpoint: u64) -> bool {
    A::is_family_of(found.given.address) && maps::endpoint::<A>(endpoint).is_some()
}
