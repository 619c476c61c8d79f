//! The datapath of portmap: from a Service address to a pod's, inside the client's system call.
//!
//! A call is followed in this order: an entry point in `main.rs` → [`socket`] reads what the client asked for → [`forward`]
//! walks the tables of [`maps`] → [`outcome`] turns the decision into what the client sees → [`report`] counts it.
//! Unsafe code is confined to where the kernel is touched: `socket`, `maps`, and the helper that gives random numbers.
#![no_std]
#![expect(clippy::inline_always, reason = "a program is one function: calls cost, and old verifiers check them apart")]

pub mod forward;
pub mod maps;
pub mod outcome;
pub mod report;
pub mod socket;

/// The BPF target cannot unwind, and the programs have no panicking path that the verifier would accept anyway.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
