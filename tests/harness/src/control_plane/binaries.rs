//! Builds the programs of Kubernetes from source, once per pinned version.
//!
//! The Go module in `tests/control-plane` pins the versions. The programs are placed in `<target directory>/control-plane`. The
//! first build takes minutes; later calls build a program only if it is missing or `go.mod` has changed. A lock serializes
//! several test processes: one builds, the others wait for it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::component::tail;

/// The paths of the programs that a [`ControlPlane`](super::ControlPlane) runs.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `etcd`, which stores the objects of the API server.
    pub etcd: PathBuf,
    /// `kube-apiserver`
    pub api_server: PathBuf,
    /// `kube-controller-manager`, which makes `EndpointSlices` from Services and Pods.
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
    /// `kube-proxy`, which tests compare with portmap.
    Proxy,
    /// `kubectl`
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

/// The programs of a control plane. Builds each program that is missing or was built from another `go.mod`.
pub fn binaries() -> Result<Binaries> {
    Ok(Binaries {
        etcd: binary(Program::Etcd)?,
        api_server: binary(Program::ApiServer)?,
        controller_manager: binary(Program::ControllerManager)?,
    })
}

/// The path of one program. Builds it if it is missing or was built from another `go.mod`.
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

/// Waits for the lock that serializes builds. Dropping the file releases it.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
    let locked = match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            progress("waiting for another process to finish its build");
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
        // Some distributions disable toolchain downloads, but go.mod may require a newer Go than theirs.
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

/// Linker flags that set the version of Kubernetes. Without them the API server reports v0.0.0, and clients treat it as
/// outdated.
fn linker_flags(go_mod: &str) -> Result<String> {
    const VARIABLES: &str = "k8s.io/component-base/version";
    let version = go_mod
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v")?.split_whitespace().next())
        .context("tests/control-plane/go.mod has no version of k8s.io/kubernetes")?;
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    Ok(format!("-s -w -X {VARIABLES}.gitVersion=v{version} -X {VARIABLES}.gitMajor={major} -X {VARIABLES}.gitMinor={minor}"))
}

/// Reports a slow step directly on standard error, because the test runner captures `eprintln!`.
fn progress(step: &str) {
    // If standard error is closed, there is no other output.
    writeln!(io::stderr(), "control plane: {step}").ok();
}
