//! The kernel's tables and the state of the agent, as the subcommands show them.

pub mod status;
pub mod table;
