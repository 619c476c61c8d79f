//! `portmap-demo`: parses the arguments and runs the demo. See [`portmap_demo`].

#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use portmap_demo::{Ending, Interrupted, Options, Pace, Recording};

/// Exit code for wrong usage, as clap's.
const WRONG_USAGE: u8 = 2;

/// Show portmap step by step: pods as network namespaces, the real agent and real connections
///
/// Needs root. No packet leaves the machine, and portmap is not attached to the root cgroup. The demo removes everything that it made, also after Ctrl-C.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Keep pods and agent running after the steps, and print commands to explore them
    #[arg(long)]
    keep: bool,
    /// Wait for Enter before each step; needs a terminal
    #[arg(long)]
    interactive: bool,
    /// Run the demo in a pseudo terminal, and write its main steps to this file as an animated SVG picture
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keep", "interactive"])]
    record: Option<PathBuf>,
    /// The directory of the example manifests [default: docs/examples of the source tree]
    #[arg(long, value_name = "DIR", hide_default_value = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples"))]
    examples: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.interactive
        && let Err(error) = portmap_demo::check_terminal()
    {
        eprintln!("error: {error:#}");
        return WRONG_USAGE.into();
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error),
    }
}

fn run(Arguments { keep, interactive, record, examples }: Arguments) -> Result<()> {
    if let Some(file) = record {
        return Recording { examples, file }.make();
    }
    let ending = if keep { Ending::Keep } else { Ending::Show };
    let pace = if interactive { Pace::Interactive } else { Pace::Steady };
    portmap_demo::run(&Options { examples, pace, ending })
}

fn failure(error: &anyhow::Error) -> ExitCode {
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        eprintln!("interrupted; the demo has removed everything that it made");
        return interrupted.exit_code().into();
    }
    let is_reader_gone = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if !is_reader_gone {
        eprintln!("error: {error:#}");
    }
    ExitCode::FAILURE
}
