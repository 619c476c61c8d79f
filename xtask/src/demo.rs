//! `cargo xtask demo`: builds everything and becomes `portmap-demo`.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::launch;

/// Show portmap at work: pods in a little world of network namespaces, the real agent, real connections
///
/// Builds everything, makes client and pods as network namespaces of their own (nothing leaves the machine, the machine's root
/// cgroup is not touched), applies the manifests in docs/examples, runs the agent and connects. Needs root. Ends clean, also on Ctrl-C.
#[derive(clap::Args)]
pub struct DemoArgs {
    /// Leave the world running and print how to look around in it
    #[arg(long)]
    keep: bool,

    /// Further arguments for portmap-demo
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Does not return when it succeeds.
pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    let keep = args.keep.then(|| OsString::from("--keep"));
    let args: Vec<OsString> = keep.into_iter().chain(args.args.iter().cloned()).collect();
    match launch::become_program("portmap-demo", &args)? {}
}
