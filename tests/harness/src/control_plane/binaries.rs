//! Builds the programs of Kubernetes from source, once for each pinned version.
//!
//! They are Go programs, pinned by the module in `tests/control-plane`, and end up beside Cargo's own output, in
//! `<target directory>/control-plane`. The first build takes minutes; later ones notice that nothing changed. Several test
//! processes may ask at the same time: one builds, the others wait for it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::process::tail;

/// The programs that a [`ControlPlane`](super::ControlPlane) runs.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The store behind the API server.
    pub etcd: PathBuf,
    /// The API server.
    pub api_server: PathBuf,
    /// What turns Services and Pods into `EndpointSlices`.
    pub controller_manager: PathBuf,
}

/// One program of the module in `tests/control-plane`.
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// `etcd`
    Etcd,
    /// `kube-apiserver`
    ApiServer,
    /// `kube-controller-manager`
    ControllerManager,
    /// `kube-proxy`, the peer that portmap is compared with.
    Proxy,
    /// `kubectl`, for the demo.
    Kubectl,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Proxy => "kube-proxy",
            Self::Kubectl => "kubectl",
        }
    }

    fn package(self) -> String {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3".to_owned(),
            Self::ApiServer | Self::ControllerManager | Self::Proxy | Self::Kubectl => {
                format!("k8s.io/kubernetes/cmd/{}", self.name())
            }
        }
    }
}

/// The programs of a control plane, built if they are not there yet or were built from another `go.mod`.
pub fn binaries() -> Result<Binaries> {
    Ok(Binaries {
        etcd: binary(Program::Etcd)?,
        api_server: binary(Program::ApiServer)?,
        controller_manager: binary(Program::ControllerManager)?,
    })
}

/// One program, built if it is not there yet or was built from another `go.mod`.
pub fn binary(program: Program) -> Result<PathBuf> {
    let directory = output_directory();
    fs::create_dir_all(&directory).with_context(|| format!("failed to create {}", directory.display()))?;
    let _lock = lock(&directory.join("lock"))?;

    let binary = directory.join(program.name());
    let stamp = directory.join(format!("{}.built-from", program.name()));
    let go_mod = fs::read_to_string(module().join("go.mod")).context("failed to read tests/control-plane/go.mod")?;
    if !binary.exists() || fs::read_to_string(&stamp).ok().as_ref() != Some(&go_mod) {
        replace(program, &binary, &stamp, &go_mod)?;
    }
    Ok(binary)
}

fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../control-plane")
}

fn output_directory() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace.join(target).join("control-plane")
}

/// Holds off other processes that build, until the file is dropped.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
    let locked = match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            progress("waiting for another process that builds the control plane");
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    locked.with_context(|| format!("failed to lock {}", path.display()))?;
    Ok(file)
}

/// Builds beside the final name and renames, so that whoever starts the program sees the old one or the new one, whole.
/// The stamp goes first and comes back last: an interrupted build is done again.
fn replace(program: Program, binary: &Path, stamp: &Path, go_mod: &str) -> Result<()> {
    let name = program.name();
    if stamp.exists() {
        fs::remove_file(stamp).with_context(|| format!("failed to remove {}", stamp.display()))?;
    }
    progress(&format!("building {name} (minutes the first time, seconds when Go's build cache is warm)"));
    let started = Instant::now();
    let unfinished = binary.with_extension("unfinished");
    build(program, &unfinished, go_mod).with_context(|| format!("failed to build {name}"))?;
    fs::rename(&unfinished, binary).with_context(|| format!("failed to rename {}", unfinished.display()))?;
    fs::write(stamp, go_mod).with_context(|| format!("failed to write {}", stamp.display()))?;
    progress(&format!("built {name} in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

fn build(program: Program, output: &Path, go_mod: &str) -> Result<()> {
    let mut go = Command::new("go");
    go.current_dir(module()).env("CGO_ENABLED", "0").env("GOWORK", "off");
    if std::env::var_os("GOTOOLCHAIN").is_none() {
        // Distributions switch this off; go.mod may ask for a newer Go than theirs.
        go.env("GOTOOLCHAIN", "auto");
    }
    go.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", &linker_flags(go_mod)?, "-o"]);
    go.arg(output).arg(program.package());

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

/// Go does not know the version of a dependency it builds: without this the API server says v0.0.0, and clients that look
/// at the version take it for an ancient one.
fn linker_flags(go_mod: &str) -> Result<String> {
    const VARIABLES: &str = "k8s.io/component-base/version";
    let version = go_mod
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v")?.split_whitespace().next())
        .context("tests/control-plane/go.mod does not name a version of k8s.io/kubernetes")?;
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    Ok(format!("-s -w -X {VARIABLES}.gitVersion=v{version} -X {VARIABLES}.gitMajor={major} -X {VARIABLES}.gitMinor={minor}"))
}

/// Says what takes so long, past the capturing of a test's output.
fn progress(what: &str) {
    // Nothing can be done about a closed stderr.
    writeln!(io::stderr(), "control plane: {what}").ok();
}
