//! `portmap-bench`: measures the cost of portmap on this machine.
//!
//! - [`connect`] measures clients' socket calls.
//! - [`sync`] measures the agent's stages.
//! - [`lookup`] measures the look-ups of the BPF programs.
//! - [`memory`] measures the memory of an agent with a real API server.
//! - [`commands`] measures the commands that people wait for.
//! - [`north_south`] measures connections of a client outside the node, and the programs that see its packets ([`packets`]).
//!
//! [`connect`], [`sync`], [`lookup`] and [`packets`] fill real maps from an artificial [`cluster`] with the agent's own
//! [`stages`]. Each measurement returns a [`Report`]. Dropping its future removes everything that it made ([`tables`],
//! [`portmap_harness::world`]).
//!
//! Compare figures of the same run only; they differ between machines.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod commands;
pub mod connect;
pub mod figures;
pub mod huge;
pub mod lookup;
pub mod machine;
pub mod memory;
pub mod north_south;
pub mod packets;
pub mod programs;
pub mod report;
pub mod stages;
pub mod sync;
pub mod tables;
mod tracing;

use clap::Args;
use serde::Serialize;

pub use report::Report;

/// The size of the artificial cluster.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Number of Services, each with one port
    #[arg(long, value_name = "COUNT", default_value_t = Self::AIMED_AT.services, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub services: u32,
    /// Number of endpoints of each Service
    #[arg(long, value_name = "COUNT", default_value_t = Self::AIMED_AT.endpoints, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub endpoints: u32,
}

impl Size {
    /// The default size, for which the project has performance limits.
    const AIMED_AT: Self = Self { services: 10_000, endpoints: 10 };
}

/// Prints the current step on standard error.
fn progress(step: &str) {
    eprintln!("{step} …");
}
