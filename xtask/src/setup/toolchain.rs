//! Finds or installs the nightly Rust that compiles the BPF programs.
//!
//! The BPF target has no prebuilt `core`, and building `core` needs a nightly. bpf-linker reads the compiler's LLVM bitcode, so
//! both must have the same major version of LLVM.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};

use super::{Purpose, Step};
use crate::program;

/// The major version of LLVM that the bpf-linker of [`super::linker`] uses.
const LLVM_MAJOR: u32 = 22;
/// The toolchain of portmap's build script if [`VARIABLE`] is not set.
pub const DEFAULT: &str = "nightly";
/// The toolchain that the set-up installs if the default is missing or has another LLVM.
const PINNED: &str = "nightly-2026-05-20";
/// Environment variable with the name of the rustup toolchain that portmap's build script uses.
pub const VARIABLE: &str = "PORTMAP_BPF_TOOLCHAIN";

/// An installed Rust toolchain. [`suitable`] checks that it is a nightly with the LLVM of bpf-linker.
pub struct Toolchain {
    /// The name of the toolchain in rustup.
    pub name: String,
    /// The version of its rustc, for example `1.97.0-nightly`.
    pub release: String,
    /// The version of its LLVM.
    llvm: String,
}

impl Toolchain {
    /// The directory of the toolchain, as rustc prints it.
    pub fn sysroot(&self) -> Result<PathBuf> {
        let path = program::output(&mut rustc(&self.name, &["--print", "sysroot"]))?;
        Ok(PathBuf::from(path.trim_end()))
    }
}

/// The toolchain for the BPF programs: that of [`VARIABLE`] or, if it is absent or empty, the first suitable one of [`DEFAULT`]
/// and [`PINNED`].
pub fn chosen() -> Result<Toolchain> {
    let named = env::var(VARIABLE).ok().filter(|name| !name.is_empty());
    if let Some(name) = named {
        return suitable(&name).with_context(|| format!("the toolchain of {VARIABLE}={name} is not suitable"));
    }
    suitable(DEFAULT).or_else(|reason| suitable(PINNED).map_err(|_| reason))
}

/// The toolchain of this name. Fails if it is not installed, is a stable or beta release, or has another LLVM.
fn suitable(name: &str) -> Result<Toolchain> {
    let toolchain = installed(name)?;
    if !toolchain.release.ends_with("-nightly") && !toolchain.release.ends_with("-dev") {
        bail!("{name} is {}, which is not a nightly", toolchain.release);
    }
    let major = program::version(&toolchain.llvm).and_then(|version| version.first().copied());
    if major != Some(LLVM_MAJOR) {
        bail!("{name} has LLVM {}, but bpf-linker needs {LLVM_MAJOR}", toolchain.llvm);
    }
    Ok(toolchain)
}

fn installed(name: &str) -> Result<Toolchain> {
    if program::find("rustup").is_none() {
        bail!("rustup, which manages Rust toolchains, is not installed: get it from https://rustup.rs");
    }
    let text = program::output(&mut rustc(name, &["-vV"])).map_err(|_| anyhow!("the toolchain {name} is not installed"))?;
    parse(name, &text).with_context(|| format!("failed to parse the version output of {name}'s rustc"))
}

/// A command of rustup, without backtraces in its errors.
pub fn rustup() -> Command {
    let mut rustup = program::command("rustup");
    rustup.env("RUST_BACKTRACE", "0");
    rustup
}

fn rustc(toolchain: &str, args: &[&str]) -> Command {
    let mut rustc = rustup();
    rustc.args(["run", toolchain, "rustc"]).args(args).env("RUSTUP_AUTO_INSTALL", "0");
    rustc
}

/// Reads the output of `rustc -vV`, which has lines of `key: value`.
fn parse(name: &str, text: &str) -> Option<Toolchain> {
    let value = |key| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    Some(Toolchain { name: name.to_owned(), release: value("release: ")?, llvm: value("LLVM version: ")? })
}

/// The step that installs the nightly Rust.
pub struct Nightly;

impl Step for Nightly {
    fn name(&self) -> &'static str {
        "nightly Rust"
    }

    fn why(&self) -> &'static str {
        "compiles the BPF programs"
    }

    fn purpose(&self) -> Purpose {
        Purpose::Build
    }

    fn check(&self) -> Result<String> {
        let Toolchain { name, release, llvm, .. } = chosen()?;
        Ok(format!("nightly Rust {release} with LLVM {llvm}, toolchain {name}"))
    }

    fn install(&self) -> Result<()> {
        if env::var_os(VARIABLE).is_some_and(|name| !name.is_empty()) {
            bail!("unset {VARIABLE}, or set it to a nightly with LLVM {LLVM_MAJOR}");
        }
        ensure(PINNED)
    }
}

/// Installs the toolchain of this name, with the minimal profile, if it does not work.
pub fn ensure(name: &str) -> Result<()> {
    if installed(name).is_ok() {
        return Ok(());
    }
    // rustup would treat the files of an interrupted installation as a toolchain, so remove them first.
    program::output(rustup().args(["toolchain", "uninstall", name])).ok();
    program::run(rustup().args(["toolchain", "install", name, "--profile", "minimal", "--no-self-update"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustc_is_understood() {
        let text = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                    release: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        let found = parse("nightly", text).map(|t| (t.name, t.release, t.llvm));
        assert_eq!(found, Some(("nightly".into(), "1.97.0-nightly".into(), "22.1.4".into())));
        assert!(parse("nightly", "error: no such thing").is_none());
    }
}
