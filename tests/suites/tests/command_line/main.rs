//! The command line: exit codes and texts, with and without privileges, and agents that read files.
//!
//! Agents run in worlds of their own. They attach to the world's cgroup and never to the machine's.
//!
//! Needs: kernel.

mod agent;
mod bad_start;
mod cgroups;
mod files;
mod harness;
mod large;
mod pins;
mod problems;
mod resolve;
mod site;
mod usage;
