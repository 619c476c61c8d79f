//! The `portmap` command. The module `cli` has its arguments and subcommands.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if cli::plugin::is_called() {
        return cli::plugin::run();
    }
    cli::run(cli::Cli::parse())
}
