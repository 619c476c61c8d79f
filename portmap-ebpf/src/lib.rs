//! The datapath of portmap: from a Service address to a pod's, inside the client's system call.
//!
//! The walk of a call is `translate` in `main.rs`: [`socket`] reads the destination → [`scope`] → [`decision`], over the tables of
//! [`maps`] → [`socket_notes`] → [`report`] counts → [`outcome`]. On the way back, [`reverse`] shows the Service to the client.
//! Unsafe code is confined to where the kernel is touched: `socket`, `maps`, reads and writes of whole words, and helpers.
#![no_std]
#![expect(clippy::inline_always, reason = "a program is one function: calls cost, and old verifiers check them apart")]

pub mod affinity;
pub mod choice;
pub mod decision;
pub mod maps;
pub mod outcome;
pub mod prefixes;
pub mod report;
pub mod reverse;
pub mod scope;
pub mod socket;
pub mod socket_notes;
pub mod source_ranges;
pub mod switches;

/// The BPF target cannot unwind, and the programs have no panicking path that the verifier would accept anyway.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
