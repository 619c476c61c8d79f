//! Installs the linters that PyPI has as prebuilt programs, into a virtual environment of this workspace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Purpose, Step, apt};
use crate::{program, workspace};

/// A step that installs a program from PyPI.
pub struct Wheel {
    /// The name of the program and of its package.
    name: &'static str,
    version: &'static str,
    why: &'static str,
    /// The crate that has the same program, for machines without a prebuilt one.
    krate: &'static str,
}

/// The checker of spelling.
pub const TYPOS: Wheel = Wheel { name: "typos", version: "1.52.0", why: "checks the spelling", krate: "typos-cli" };

/// The formatter of TOML files.
pub const TAPLO: Wheel = Wheel { name: "taplo", version: "0.9.3", why: "checks the format of TOML files", krate: "taplo-cli" };

impl Wheel {
    /// A command that starts the program. Fails if it is not installed in the right version.
    pub fn command(&self) -> Result<Command> {
        self.check()?;
        self.any_version()
    }

    /// A command of the program in the virtual environment or, without that, on PATH.
    fn any_version(&self) -> Result<Command> {
        let own = environment()?.join("bin").join(self.name);
        let path = if own.is_file() { own } else { program::find(self.name).context("not installed")? };
        Ok(Command::new(path))
    }

    fn install_from_pypi(&self) -> Result<()> {
        let environment = environment()?;
        let pip = || {
            let mut pip = Command::new(environment.join("bin/python"));
            pip.args(["-m", "pip", "--disable-pip-version-check"]);
            pip
        };
        if program::output(pip().arg("--version")).is_err() {
            // Debian's python3 lacks this module unless python3-venv is installed.
            if program::output(program::command("python3").args(["-c", "import ensurepip"])).is_err() {
                apt::install(&["python3".into(), "python3-venv".into()])?;
            }
            program::run(program::command("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        }
        let package = format!("{}=={}", self.name, self.version);
        program::run(pip().args(["install", "--quiet", "--only-binary=:all:", &package]))
    }
}

impl Step for Wheel {
    fn name(&self) -> &'static str {
        self.name
    }

    fn why(&self) -> &'static str {
        self.why
    }

    fn purpose(&self) -> Purpose {
        Purpose::Lint
    }

    fn check(&self) -> Result<String> {
        let found = program::output(self.any_version()?.arg("--version"))?;
        if found.split_whitespace().last() != Some(self.version) {
            bail!("found {}, but {} is needed", found.trim(), self.version);
        }
        Ok(format!("{} {}", self.name, self.version))
    }

    fn install(&self) -> Result<()> {
        let Self { name, version, krate, .. } = self;
        self.install_from_pypi().with_context(|| {
            format!(
                "failed to install the prebuilt {name}; install it with `cargo install {krate} --version {version} --locked`"
            )
        })
    }
}

/// The directory of the virtual environment. It may not exist yet.
fn environment() -> Result<PathBuf> {
    Ok(workspace::tools_dir()?.join("python"))
}
