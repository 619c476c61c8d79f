//! The command line as its users meet it: exit codes and texts, with and without privileges, and the agent's life on files.
//!
//! Agents run in worlds of their own, attached to the world's cgroup and never to the machine's.
//!
//! Needs: kernel.

#[path = "command_line/agent.rs"]
mod agent;
#[path = "command_line/bad_start.rs"]
mod bad_start;
#[path = "command_line/cgroups.rs"]
mod cgroups;
#[path = "command_line/files.rs"]
mod files;
#[path = "command_line/harness.rs"]
mod harness;
#[path = "command_line/large.rs"]
mod large;
#[path = "command_line/pins.rs"]
mod pins;
#[path = "command_line/resolve.rs"]
mod resolve;
#[path = "command_line/site.rs"]
mod site;
#[path = "command_line/trouble.rs"]
mod trouble;
#[path = "command_line/usage.rs"]
mod usage;
