//! The datapath of portmap: from a Service address to a pod's, inside the client's system call.
//!
//! A call is followed in this order: an entry point in `main.rs` → [`socket`] reads what the client asked for → [`forward`]
//! walks the tables of [`maps`] → [`memory`] notes it on the socket → [`report`] counts it → [`outcome`] turns the decision into
//! what the client sees. On the way back, [`reverse`] shows the client what it had asked for.
//! Unsafe code is confined to where the kernel is touched: `socket`, `maps`, reads and writes of whole words, and helpers.
#![no_std]
#![expect(clippy::inline_always, reason = "a program is one function: calls cost, and old verifiers check them apart")]

pub mod affinity;
pub mod forward;
pub mod maps;
pub mod memory;
pub mod outcome;
pub mod prefixes;
pub mod report;
pub mod reverse;
pub mod scope;
pub mod socket;
pub mod sources;
pub mod switches;

/// The BPF target cannot unwind, and the programs have no panicking path that the verifier would accept anyway.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
