//! The BPF programs at network devices: the devices that the agent chooses, and the life of the programs there.
//!
//! Each test runs once for each way in which this kernel attaches programs ([`view::Way`]). The node of a test has a device
//! `eth0` with a default route, and no other host. The tests ask the kernel for the programs, not the agent.
//!
//! Needs: root and BPF.

mod following;
mod lifetime;
mod node;
mod options;
mod other_programs;
mod view;
