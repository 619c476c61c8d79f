//! `cargo xtask bench`: builds the workspace and executes `portmap-bench` in place of this process.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::launch;

/// Measure portmap on this machine
///
/// `connect` measures clients' socket calls through portmap, compared with direct calls. `sync` measures the time from objects
/// in memory to the BPF maps. `lookup` measures the look-ups of the BPF programs. `memory` measures the agent's memory with a
/// real API server. `north-south` measures connections of a client outside the node, and the programs that see its packets.
/// `commands` measures `explain`, `lint`, `verify`, `top` and `page` with many Services. `cargo xtask bench NAME --help` lists the arguments of a measurement. Needs root.
#[derive(clap::Args)]
#[command(override_usage = "cargo xtask bench <NAME> [ARGS]...")]
pub struct BenchArgs {
    /// The measurement and its arguments
    #[arg(value_name = "NAME", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Executes `portmap-bench`. Returns only if that fails.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    match launch::become_program("portmap-bench", &args.words)? {}
}
