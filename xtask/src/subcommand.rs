//! Subcommands of cargo that are built from source, each in a directory of this workspace.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::screen::Screen;
use crate::setup;
use crate::{program, workspace};

/// A subcommand of cargo that is built from source, into a directory of this workspace.
pub struct Subcommand {
    /// Its package, which has the name of its program.
    pub package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Cargo's arguments for its features.
    pub features: &'static [&'static str],
}

impl Subcommand {
    /// A command of this program in the root of the workspace. Builds the program first, if necessary.
    pub fn command(&self) -> Result<Command> {
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
