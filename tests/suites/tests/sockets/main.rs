//! Everything that a process can do with a socket and a Service address, on the real kernel.
//!
//! Each file is one concern. Processes of a world are driven one system call at a time ([`portmap_harness::process`]), and real
//! clients run as they are.
//!
//! Needs: kernel.

mod affinity;
mod attach;
mod bad_input;
mod clients;
mod clock;
mod counters;
mod diagnostics;
mod distribution;
mod ended_sockets;
mod matrix;
mod names;
mod node_ports;
mod odd;
mod opt_out;
mod privileges;
mod repair;
mod source_ranges;
mod sources;
mod takeover;
mod udp;
mod verdicts;
