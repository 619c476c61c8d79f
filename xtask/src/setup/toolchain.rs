//! The nightly Rust that compiles the BPF programs.
//!
//! The BPF target has no prebuilt `core`, and building it needs a nightly. bpf-linker then reads the compiler's LLVM bitcode, so both
//! must have the same LLVM major version.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};

use super::{Purpose, Step};
use crate::program;

/// The LLVM that [`super::linker`]'s bpf-linker is made for.
const LLVM_MAJOR: u32 = 22;
/// What portmap's build script uses when [`VARIABLE`] is not set.
pub const DEFAULT: &str = "nightly";
/// Installed when the machine's own nightly has another LLVM.
const PINNED: &str = "nightly-2026-05-20";
/// Names the toolchain for portmap's build script.
pub const VARIABLE: &str = "PORTMAP_BPF_TOOLCHAIN";

/// An installed toolchain that fits.
pub struct Toolchain {
    /// As rustup calls it.
    pub name: String,
    /// Its rustc's version, as in `1.97.0-nightly`.
    pub release: String,
    llvm: String,
}

impl Toolchain {
    /// Where it is installed.
    pub fn sysroot(&self) -> Result<PathBuf> {
        let path = program::output(&mut rustc(&self.name, &["--print", "sysroot"]))?;
        Ok(PathBuf::from(path.trim_end()))
    }
}

/// The toolchain that the BPF programs are built with: the one that the variable names, else the first that fits.
pub fn chosen() -> Result<Toolchain> {
    let named = env::var(VARIABLE).ok().filter(|name| !name.is_empty());
    if let Some(name) = named {
        return fitting(&name).with_context(|| format!("{VARIABLE}={name} does not fit"));
    }
    fitting(DEFAULT).or_else(|reason| fitting(PINNED).map_err(|_| reason))
}

fn fitting(name: &str) -> Result<Toolchain> {
    let toolchain = installed(name)?;
    if !toolchain.release.ends_with("-nightly") && !toolchain.release.ends_with("-dev") {
        bail!("{name} is {}, not a nightly", toolchain.release);
    }
    let major = program::version(&toolchain.llvm).and_then(|version| version.first().copied());
    if major != Some(LLVM_MAJOR) {
        bail!("{name} has LLVM {}, bpf-linker needs {LLVM_MAJOR}", toolchain.llvm);
    }
    Ok(toolchain)
}

fn installed(name: &str) -> Result<Toolchain> {
    if program::find("rustup").is_none() {
        bail!("rustup is missing, which manages Rust toolchains: install it (https://rustup.rs)");
    }
    let text = program::output(&mut rustc(name, &["-vV"])).map_err(|_| anyhow!("no toolchain {name}"))?;
    parse(name, &text).with_context(|| format!("failed to understand what {name}'s rustc says of itself"))
}

/// rustup, which shows where it failed, not how it got there.
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

/// Reads `rustc -vV`: lines of `key: value`.
fn parse(name: &str, text: &str) -> Option<Toolchain> {
    let value = |key| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    Some(Toolchain { name: name.to_owned(), release: value("release: ")?, llvm: value("LLVM version: ")? })
}

/// The step.
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
            bail!("unset {VARIABLE}, or let it name a nightly with LLVM {LLVM_MAJOR}");
        }
        if installed(PINNED).is_err() {
            // What an interrupted installation left, which rustup would take for a toolchain.
            program::output(rustup().args(["toolchain", "uninstall", PINNED])).ok();
        }
        program::run(rustup().args(["toolchain", "install", PINNED, "--profile", "minimal", "--no-self-update"]))
    }
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
