//! The programs of Kubernetes, built from source ([`GoProgram`]). The Go module in `tests/control-plane` pins the versions.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::go_program::{GoProgram, go_mod};

const MODULE: &str = "control-plane";

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
    let linker_flags = linker_flags(&go_mod(MODULE)?)?;
    GoProgram { module: MODULE, name: program.name(), package: program.package(), linker_flags }.binary()
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
    Ok(format!("-X {VARIABLES}.gitVersion=v{version} -X {VARIABLES}.gitMajor={major} -X {VARIABLES}.gitMinor={minor}"))
}
