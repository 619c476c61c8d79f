//! `cargo xtask demo`: builds the workspace and executes `portmap-demo` in place of this process.

use std::ffi::OsString;
use std::path::PathBuf;
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

    /// Wait for Enter before each step; needs a terminal
    #[arg(long)]
    interactive: bool,

    /// Run the demo in a pseudo terminal, and write its main steps to this file as an animated SVG picture
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keep", "interactive"])]
    record: Option<PathBuf>,

    /// More arguments for portmap-demo
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Executes `portmap-demo`. Returns only if that fails.
pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    let mut arguments = Vec::new();
    arguments.extend(args.keep.then(|| "--keep".into()));
    arguments.extend(args.interactive.then(|| "--interactive".into()));
    if let Some(file) = &args.record {
        arguments.extend(["--record".into(), file.into()]);
    }
    arguments.extend(args.args.iter().cloned());
    match launch::become_program("portmap-demo", &arguments)? {}
}
