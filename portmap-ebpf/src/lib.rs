//! The datapath of portmap: it replaces a Service address by a pod address, for clients on the node inside their system call, and
//! for clients outside the node in their packets ([`outside`]).
//!
//! `translate` in `main.rs` runs the steps of a call: [`socket`] reads the destination → [`scope`] → [`decision`], which
//! reads the tables of [`maps`] → [`socket_notes`] → [`report`] → [`outcome`]. In the other direction, [`reverse`] shows the
//! Service to the client.
//!
//! The agent writes the tables while the programs run. `portmap_common` defines their layout. Unsafe code is limited to access
//! to the kernel: the hook's context, map elements, reads and writes of words in them, and helpers.
#![no_std]
#![expect(clippy::inline_always, reason = "a program is one function: calls are slow, and old verifiers check them separately")]

pub mod affinity;
pub mod choice;
pub mod decision;
pub mod maps;
pub mod outcome;
pub mod outside;
pub mod prefixes;
pub mod report;
pub mod reverse;
pub mod scope;
pub mod socket;
pub mod socket_notes;
pub mod source_ranges;
pub mod switches;
pub mod trace;

/// Never reached: the verifier rejects a program that could reach this endless loop. The BPF target cannot unwind.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
