//! Shows portmap at work in a little world of its own.

#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use portmap_demo::{Ending, Interrupted, Options};

/// Shows portmap at work: pods, the real agent and real connections, in network namespaces of their own
///
/// Needs root. Nothing leaves the machine, and the machine's root cgroup is not touched. Ends clean, also on Ctrl-C.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Leave everything running after the steps, and print how to look around
    #[arg(long)]
    keep: bool,
    /// The directory of the example manifests [default: docs/examples of the source tree]
    #[arg(long, value_name = "DIR", hide_default_value = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples"))]
    examples: PathBuf,
}

fn main() -> ExitCode {
    let Arguments { keep, examples } = Arguments::parse();
    let ending = if keep { Ending::Keep } else { Ending::Show };
    match portmap_demo::run(&Options { examples, ending }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error),
    }
}

fn failure(error: &anyhow::Error) -> ExitCode {
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        eprintln!("interrupted; everything is cleaned up");
        return interrupted.exit_code().into();
    }
    let is_reader_gone = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if !is_reader_gone {
        eprintln!("error: {error:#}");
    }
    ExitCode::FAILURE
}
