//! `cargo xtask bench`: builds everything and becomes `portmap-bench`.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::launch;

/// Measure portmap on this machine
///
/// NAME is `connect` (what clients pay for calls through portmap, against direct ones), `sync` (from objects in memory to the
/// kernel's tables), `lookup` (one look-up of the programs) or `memory` (what the agent keeps of a real API server's objects). What follows it goes to the measurement; `cargo xtask bench NAME --help` shows its options. Needs root.
#[derive(clap::Args)]
#[command(override_usage = "cargo xtask bench <NAME> [ARGS]...")]
pub struct BenchArgs {
    /// Which measurement, and its arguments
    #[arg(value_name = "NAME", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Does not return when it succeeds.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    match launch::become_program("portmap-bench", &args.words)? {}
}
