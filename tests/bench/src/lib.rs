//! `portmap-bench`: what portmap costs, measured on this machine.
//!
//! [`connect`] measures what a client pays, [`sync`] what the agent does, [`lookup`] the programs' walk through the tables, and
//! [`memory`] what the agent keeps of a real API server's objects. The first three fill the real tables from a made-up [`cluster`] with the agent's own [`stages`], and end in a [`Report`]. What they
//! make is theirs, and goes when their future is dropped: [`tables`] and [`portmap_harness::world`] see to that.
//!
//! The figures mean something beside others of the same run, and little beside those of another machine.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod connect;
pub mod figures;
pub mod huge;
pub mod lookup;
pub mod machine;
pub mod memory;
pub mod programs;
pub mod report;
pub mod stages;
pub mod sync;
pub mod tables;

use clap::Args;
use serde::Serialize;

pub use report::Report;

/// How much the tables hold.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Services in the tables, each with one port
    #[arg(long, value_name = "COUNT", default_value_t = Self::AIMED_AT.services, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub services: u32,
    /// Endpoints of each Service
    #[arg(long, value_name = "COUNT", default_value_t = Self::AIMED_AT.endpoints, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub endpoints: u32,
}

impl Size {
    /// The size that the project's aims are for.
    const AIMED_AT: Self = Self { services: 10_000, endpoints: 10 };
}

/// Says on standard error what takes its time now.
fn progress(text: &str) {
    eprintln!("{text} …");
}
