//! `cargo xtask demo`: builds the workspace and executes `portmap-demo` in place of this process.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::launch;

/// Show portmap step by step: pods as network namespaces, the real agent and real connections
///
/// Builds the workspace, makes the pods of the manifests in docs/examples, runs the agent on these manifests, and connects. No
/// packet leaves the machine, and portmap is not attached to the root cgroup. Removes everything at the end, also after Ctrl-C.
/// Needs root.
#[derive(clap::Args)]
pub struct DemoArgs {
    /// Keep pods and agent running after the steps, and print commands to explore them
    #[arg(long)]
    keep: bool,

    /// More arguments for portmap-demo
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Executes `portmap-demo`. Returns only if that fails.
pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    let keep = args.keep.then(|| OsString::from("--keep"));
    let args: Vec<OsString> = keep.into_iter().chain(args.args.iter().cloned()).collect();
    match launch::become_program("portmap-demo", &args)? {}
}
