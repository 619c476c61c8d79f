//! `cargo xtask audit`: checks licences, sources, duplicates and known vulnerabilities of all dependencies, by `deny.toml`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::program;
use crate::subcommand::Subcommand;

/// Check licences, sources, duplicates and known vulnerabilities of all dependencies
///
/// The first time it builds cargo-deny, which takes some minutes.
#[derive(clap::Args, Default)]
pub struct AuditArgs {
    /// Leave out known vulnerabilities, whose database is downloaded from GitHub
    #[arg(long)]
    no_advisories: bool,
    /// Only write the licences of all dependencies of the program `portmap` to this file, as about.hbs lays them out
    #[arg(long, value_name = "FILE", conflicts_with = "no_advisories")]
    licenses: Option<PathBuf>,
}

const DENY: Subcommand = Subcommand { package: "cargo-deny", version: "0.20.2", features: &[] };
const ABOUT: Subcommand = Subcommand { package: "cargo-about", version: "0.9.3", features: &["--features", "cli"] };

/// Runs `cargo deny check` or, for `--licenses`, `cargo about generate`.
pub fn run(args: &AuditArgs) -> Result<ExitCode> {
    match &args.licenses {
        Some(file) => write_licenses(file)?,
        None => check(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn check(args: &AuditArgs) -> Result<()> {
    let mut deny = DENY.command()?;
    deny.args(["--locked", "check", "bans", "licenses", "sources"]);
    if args.no_advisories {
        return program::run(&mut deny);
    }
    program::run(deny.arg("advisories")).context("`--no-advisories` needs no database of vulnerabilities")
}

/// Writes the licences of all dependencies of the program `portmap` to a file.
pub fn write_licenses(file: &Path) -> Result<()> {
    let mut about = ABOUT.command()?;
    about.args(["generate", "--locked", "--fail", "--manifest-path", "portmap/Cargo.toml", "about.hbs"]);
    let text = program::output(&mut about)?;
    fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))
}
