//! The command line: exit codes and texts, with and without privileges, and agents that read files.
//!
//! Each agent runs in the network namespace of its own node (`World`). It attaches to the world's cgroup, never to the
//! machine's.
//!
//! Needs: root and BPF.

mod agent;
mod bad_start;
mod cgroups;
mod doctor;
mod explain;
mod files;
mod large;
mod listening;
mod manual;
mod pins;
mod plugin;
mod problems;
mod resolve;
mod site;
mod usage;
mod verify;
