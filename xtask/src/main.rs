//! The project's own commands: `cargo xtask setup | demo | bench | test | lint`.
//!
//! One file per command. Each of them first makes sure that the tools it needs are there ([`setup::ensure`]), so that a fresh clone
//! on a machine with only rustup needs no other preparation. What is built and run, and how, is the business of `portmap` and
//! of the crates below `tests`; nothing of portmap itself lives here, which keeps this crate quick to build.
#![forbid(unsafe_code)]

mod bench;
mod demo;
mod launch;
mod lint;
mod program;
mod screen;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The commands of the portmap project. Every one of them sets up by itself what it needs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Setup(setup::SetupArgs),
    Demo(demo::DemoArgs),
    Bench(bench::BenchArgs),
    Test(test::TestArgs),
    Lint(lint::Args),
}

fn main() -> ExitCode {
    match run(&Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<ExitCode> {
    match task {
        Task::Setup(args) => setup::run(args),
        Task::Demo(args) => demo::run(args),
        Task::Bench(args) => bench::run(args),
        Task::Test(args) => test::run(args),
        Task::Lint(args) => lint::run(args),
    }
}
