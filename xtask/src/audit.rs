//! `cargo xtask audit`: checks licences, sources, duplicates and known vulnerabilities of all dependencies, by `deny.toml`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::screen::Screen;
use crate::setup;
use crate::{program, workspace};

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

/// A subcommand of cargo that is built from source, into a directory of this workspace.
struct Subcommand {
    package: &'static str,
    version: &'static str,
    /// Cargo's arguments for its features.
    features: &'static [&'static str],
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

fn write_licenses(file: &Path) -> Result<()> {
    let mut about = ABOUT.command()?;
    about.args(["generate", "--locked", "--fail", "--manifest-path", "portmap/Cargo.toml", "about.hbs"]);
    let text = program::output(&mut about)?;
    fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))
}

impl Subcommand {
    /// A command of this program in the root of the workspace. Builds the program first, if necessary.
    fn command(&self) -> Result<Command> {
        let root = workspace::tools_dir()?.join(self.package);
        let path = root.join("bin").join(self.package);
        let _lock = setup::lock()?;
        if !self.is_installed(&path) {
            let begin = Instant::now();
            let mut install = workspace::cargo();
            install.args(["install", self.package, "--version", self.version, "--locked", "--force", "--root"]).arg(&root);
            program::run(install.args(self.features))?;
            Screen::Stderr.line(&format!("{} installed in {:.0} s", self.package, begin.elapsed().as_secs_f32()));
        }
        let mut command = Command::new(path);
        command.current_dir(workspace::root()).env("PATH", program::search_path());
        Ok(command)
    }

    fn is_installed(&self, path: &Path) -> bool {
        let version = program::output(Command::new(path).arg("--version"));
        version.is_ok_and(|version| version.split_whitespace().last() == Some(self.version))
    }
}
