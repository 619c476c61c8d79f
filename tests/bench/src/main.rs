//! `portmap-bench`: parses the arguments, runs one measurement and prints its report. See [`portmap_bench`].

#![forbid(unsafe_code)]

use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use nix::unistd::geteuid;
use portmap_bench::{Report, commands, connect, lookup, memory, north_south, sync};
use portmap_harness::world::World;
use tokio::signal::unix::{SignalKind, signal};

/// Measure portmap on this machine
///
/// Each measurement makes its own network namespaces, without a route off the machine, a cgroup and a bpffs directory, and
/// removes them at the end. Needs root. Compare figures of the same run only.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
    /// The output format
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Format,
    /// Exit with 1 if a figure exceeds its limit
    #[arg(long, global = true)]
    check: bool,
}

#[derive(Subcommand)]
enum Bench {
    Connect(connect::ConnectArguments),
    Sync(sync::SyncArguments),
    Lookup(lookup::LookupArguments),
    Memory(memory::MemoryArguments),
    NorthSouth(north_south::NorthSouthArguments),
    Commands(commands::CommandsArguments),
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// Aligned columns, for people
    #[default]
    Table,
    /// JSON, for programs
    Json,
}

/// The exit code after a signal: 128 plus the signal's number.
type Interrupted = u8;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = run(Cli::parse()).await;
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(cli: Cli) -> Result<ExitCode> {
    anyhow::ensure!(
        geteuid().is_root(),
        "the measurements need network namespaces, cgroups and BPF programs: run this as root"
    );
    let mut signals = Box::pin(signals()?);
    World::sweep();
    let report = tokio::select! {
        interrupted = &mut signals => return Ok(stop(interrupted)),
        report = measure(cli.bench) => report,
    };
    if report.is_err() {
        // Ctrl-C also ends the child processes, and the measurement fails. That error is not reported.
        if let Ok(interrupted) = tokio::time::timeout(Duration::from_millis(10), signals).await {
            return Ok(stop(interrupted));
        }
    }
    let report = report?;
    print(&report, cli.output)?;
    Ok(if cli.check && !report.is_met() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure(bench: Bench) -> Result<Report> {
    match bench {
        Bench::Connect(arguments) => connect::run(arguments).await,
        Bench::Sync(arguments) => sync::run(arguments).await,
        Bench::Lookup(arguments) => lookup::run(arguments).await,
        Bench::Memory(arguments) => memory::run(arguments).await,
        Bench::NorthSouth(arguments) => north_south::run(arguments).await,
        Bench::Commands(arguments) => commands::run(arguments).await,
    }
}

/// Returns a future that waits for SIGINT or SIGTERM. From this call on, these signals do not end the process.
fn signals() -> Result<impl Future<Output = Interrupted>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
        }
    })
}

fn stop(interrupted: Interrupted) -> ExitCode {
    eprintln!("interrupted: the measurement has removed everything that it made");
    ExitCode::from(interrupted)
}

fn print(report: &Report, format: Format) -> Result<()> {
    let output = match format {
        Format::Table => report.to_string(),
        Format::Json => serde_json::to_string_pretty(report).context("failed to write JSON")? + "\n",
    };
    io::stdout().write_all(output.as_bytes()).context("failed to print")
}
