//! Everything that a process can do with a socket and a Service address, on the real kernel.
//!
//! Each file is one concern. Processes of a world are driven one system call at a time ([`portmap_tests::process`]), and real
//! clients run as they are.
//!
//! Needs: kernel.

#[path = "sockets/affinity.rs"]
mod affinity;
#[path = "sockets/attach.rs"]
mod attach;
#[path = "sockets/bad_input.rs"]
mod bad_input;
#[path = "sockets/clients.rs"]
mod clients;
#[path = "sockets/clock.rs"]
mod clock;
#[path = "sockets/counters.rs"]
mod counters;
#[path = "sockets/diagnostics.rs"]
mod diagnostics;
#[path = "sockets/distribution.rs"]
mod distribution;
#[path = "sockets/matrix.rs"]
mod matrix;
#[path = "sockets/names.rs"]
mod names;
#[path = "sockets/node_ports.rs"]
mod node_ports;
#[path = "sockets/objects.rs"]
mod objects;
#[path = "sockets/odd.rs"]
mod odd;
#[path = "sockets/opt_out.rs"]
mod opt_out;
#[path = "sockets/privileges.rs"]
mod privileges;
#[path = "sockets/repair.rs"]
mod repair;
#[path = "sockets/source_ranges.rs"]
mod source_ranges;
#[path = "sockets/sources.rs"]
mod sources;
#[path = "sockets/stage.rs"]
mod stage;
#[path = "sockets/stale.rs"]
mod stale;
#[path = "sockets/takeover.rs"]
mod takeover;
#[path = "sockets/udp.rs"]
mod udp;
#[path = "sockets/verdicts.rs"]
mod verdicts;
