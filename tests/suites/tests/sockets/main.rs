//! System calls on sockets with Service addresses, on the real kernel.
//!
//! Each module has one subject. A test creates a node and pods from network namespaces and cgroups
//! ([`portmap_harness::world`]). Its processes make one system call at a time ([`portmap_harness::process`]), or are ordinary
//! client programs.
//!
//! Needs: root and BPF.

mod affinity;
mod attach;
mod bad_input;
mod clients;
mod clock;
mod counters;
mod diagnostics;
mod distribution;
mod ended_sockets;
mod growth;
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
