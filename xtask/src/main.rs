//! The project's own commands: `cargo xtask setup | demo | cluster | bench | test | lint | msrv | audit | ci | dist | image`.
//!
//! Each command has one module. It first installs the tools that it needs ([`setup::ensure`]), so a fresh clone needs only
//! rustup. The commands build and run `portmap` and the crates below `tests`. This crate depends on none of them, so it builds
//! quickly.
#![forbid(unsafe_code)]

mod audit;
mod bench;
mod ci;
mod cluster;
mod demo;
mod files;
mod launch;
mod libraries;
mod lint;
mod msrv;
mod oci;
mod program;
mod release;
mod screen;
mod setup;
mod subcommand;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The commands of the portmap project. Each command installs the tools that it needs.
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
    Msrv(msrv::Args),
    Audit(audit::AuditArgs),
    Ci(ci::CiArgs),
    Cluster(cluster::session::ClusterArgs),
    Dist(release::dist::DistArgs),
    Image(release::image::ImageArgs),
    #[command(name = cluster::process::SUBCOMMAND, hide = true)]
    ClusterProcess(cluster::process::ProcessArgs),
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
        Task::Msrv(args) => msrv::run(args),
        Task::Audit(args) => audit::run(args),
        Task::Ci(args) => ci::run(args),
        Task::Cluster(args) => cluster::session::run(args),
        Task::Dist(args) => release::dist::run(args),
        Task::Image(args) => release::image::run(args),
        Task::ClusterProcess(args) => cluster::process::run(args),
    }
}
