//! Builds programs from source that Go modules of this workspace pin, once per pinned version.
//!
//! A Go module in `tests/MODULE` pins the versions. Its programs are placed in `<target directory>/MODULE`. The first build
//! takes minutes; later calls build a program only if it is missing or `go.mod` has changed. A lock serializes several test
//! processes: one builds, the others wait for it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Number of log lines in an error message.
const TAIL_LINES: usize = 25;

/// A program of a Go module in `tests`.
#[derive(Clone, Debug)]
pub struct GoProgram {
    /// The directory of the module below `tests`.
    pub module: &'static str,
    /// The name of the program's file.
    pub name: &'static str,
    /// The Go package of the program.
    pub package: String,
    /// Further flags of the linker, such as `-X VARIABLE=VALUE`.
    pub linker_flags: String,
}

impl GoProgram {
    /// The path of the program. Builds it if it is missing or was built from another `go.mod`.
    pub fn binary(&self) -> Result<PathBuf> {
        let directory = self.output_directory();
        fs::create_dir_all(&directory).with_context(|| format!("failed to create {}", directory.display()))?;
        let _lock = self.lock(&directory.join("lock"))?;

        let binary = directory.join(self.name);
        let stamp = directory.join(format!("{}.built-from", self.name));
        let go_mod = go_mod(self.module)?;
        if !binary.exists() || fs::read_to_string(&stamp).ok().as_ref() != Some(&go_mod) {
            self.replace(&binary, &stamp, &go_mod)?;
        }
        Ok(binary)
    }

    fn output_directory(&self) -> PathBuf {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        workspace.join(target).join(self.module)
    }

    /// Waits for the lock that serializes builds. Dropping the file releases it.
    fn lock(&self, path: &Path) -> Result<File> {
        let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                self.progress("waiting for another process to finish its build");
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        locked.with_context(|| format!("failed to lock {}", path.display()))?;
        Ok(file)
    }

    /// Builds to a temporary name and renames the result, so that the program is always complete.
    ///
    /// The stamp is removed first and written last, so that an interrupted build is repeated.
    fn replace(&self, binary: &Path, stamp: &Path, go_mod: &str) -> Result<()> {
        let name = self.name;
        if stamp.exists() {
            fs::remove_file(stamp).with_context(|| format!("failed to remove {}", stamp.display()))?;
        }
        self.progress(&format!("building {name} (minutes the first time, seconds when Go's build cache is warm)"));
        let started = Instant::now();
        let unfinished = binary.with_extension("unfinished");
        self.build(&unfinished).with_context(|| format!("failed to build {name}"))?;
        fs::rename(&unfinished, binary).with_context(|| format!("failed to rename {}", unfinished.display()))?;
        fs::write(stamp, go_mod).with_context(|| format!("failed to write {}", stamp.display()))?;
        self.progress(&format!("built {name} in {:.0} s", started.elapsed().as_secs_f64()));
        Ok(())
    }

    fn build(&self, output: &Path) -> Result<()> {
        let mut go = Command::new("go");
        go.current_dir(directory(self.module)).env("CGO_ENABLED", "0").env("GOWORK", "off");
        if std::env::var_os("GOTOOLCHAIN").is_none() {
            // Some distributions disable toolchain downloads, but go.mod may require a newer Go than theirs.
            go.env("GOTOOLCHAIN", "auto");
        }
        let linker_flags = format!("-s -w {}", self.linker_flags);
        go.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", linker_flags.trim_end(), "-o"]);
        go.arg(output).arg(&self.package);

        let result = match go.output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("Go is not installed: run `cargo xtask setup`, or install Go 1.21 or newer")
            }
            other => other.context("failed to run go")?,
        };
        if !result.status.success() {
            bail!("go build: {}\n{}", result.status, tail(&String::from_utf8_lossy(&result.stderr)));
        }
        Ok(())
    }

    /// Reports a slow step directly on standard error, because the test runner captures `eprintln!`.
    fn progress(&self, step: &str) {
        // If standard error is closed, there is no other output.
        writeln!(io::stderr(), "{}: {step}", self.module.replace('-', " ")).ok();
    }
}

/// The text of the `go.mod` of a module in `tests`.
pub fn go_mod(module: &str) -> Result<String> {
    fs::read_to_string(directory(module).join("go.mod")).with_context(|| format!("failed to read tests/{module}/go.mod"))
}

fn directory(module: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(module)
}

/// The last [`TAIL_LINES`] lines of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
