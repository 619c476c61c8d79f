//! `cargo xtask bench`: builds everything and becomes `portmap-bench`.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::launch;

/// Measure portmap on this machine
///
/// NAME is `connect` (the price of a connection through portmap against a direct one) or `sync` (from objects in memory to the kernel's
/// tables). What follows it goes to the measurement; `cargo xtask bench NAME --help` shows its options. Needs root.
#[derive(clap::Args)]
#[command(override_usage = "cargo xtask bench <NAME> [ARGS]...")]
pub struct Args {
    /// Which measurement, and its arguments
    #[arg(value_name = "NAME", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Does not return when it succeeds.
pub fn run(args: &Args) -> Result<ExitCode> {
    match launch::become_program("portmap-bench", &args.words)? {}
}
