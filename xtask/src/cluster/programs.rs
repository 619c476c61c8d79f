//! Builds the programs of the cluster from source: Kubernetes with its tests, etcd, Helm, `CoreDNS` and runc.
//!
//! The Go modules below `tests/cluster`, and those of the tests of the control plane and the chart, pin the versions. The first build takes about a quarter of an hour on two processors.
//! Later calls build a program only if the `go.mod` of its module has changed.

use std::env;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::layout::Layout;
use super::stamp::Stamp;
use crate::screen::{Mark, Screen};
use crate::{program, workspace};

/// The form in which Go builds a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A statically linked program.
    Command,
    /// The tests of a package as a program.
    Tests,
    /// A statically linked program with the C library libseccomp.
    WithSeccomp,
}

/// A program of one of the Go modules.
struct Program {
    name: &'static str,
    module: &'static str,
    package: &'static str,
    form: Form,
}

const KUBERNETES: &str = "kubernetes";

const fn kubernetes(name: &'static str, package: &'static str) -> Program {
    Program { name, module: KUBERNETES, package, form: Form::Command }
}

/// All programs. The slow builds come first.
const PROGRAMS: [Program; 14] = [
    kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    Program { name: "e2e.test", module: KUBERNETES, package: "k8s.io/kubernetes/test/e2e", form: Form::Tests },
    Program {
        name: "kube-proxy",
        module: "../control-plane",
        package: "k8s.io/kubernetes/cmd/kube-proxy",
        form: Form::Command,
    },
    kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    kubernetes("etcd", "go.etcd.io/etcd/server/v3"),
    kubernetes("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"),
    kubernetes("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
    kubernetes("regression-issue-74839", "k8s.io/kubernetes/test/images/regression-issue-74839"),
    Program { name: "helm", module: "../chart", package: "helm.sh/helm/v4/cmd/helm", form: Form::Command },
    Program { name: "coredns", module: "coredns", package: ".", form: Form::Command },
    Program { name: "runc", module: "runc", package: "github.com/opencontainers/runc", form: Form::WithSeccomp },
];

/// Builds all programs that are missing or outdated into [`Layout::bin`]. Needs the packages of [`super::packages`].
pub fn build(layout: &Layout) -> Result<()> {
    PROGRAMS.iter().try_for_each(|program| {
        let output = layout.bin().join(program.name);
        Stamp::new(&output, program.input()?).ensure(|| program.build(layout, &output))
    })
}

/// A text that identifies the versions of Kubernetes and of its dependencies.
pub fn versions() -> Result<String> {
    go_mod(KUBERNETES)
}

/// The directory with the source of Kubernetes in Go's module cache.
pub fn kubernetes_source() -> Result<PathBuf> {
    let path = program::output(go(KUBERNETES).args(["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]))?;
    Ok(PathBuf::from(path.trim_end()))
}

impl Program {
    /// A text that identifies the source of the program, and the way of its build.
    fn input(&self) -> Result<String> {
        let main = fs::read_to_string(directory(self.module).join("main.go")).unwrap_or_default();
        Ok(format!("{:?} {}\n{main}\n{}", self.form, self.package, go_mod(self.module)?))
    }

    /// Builds to a temporary name and renames the result, so that the program is always complete.
    fn build(&self, layout: &Layout, output: &Path) -> Result<()> {
        let begin = Instant::now();
        Screen::Stderr.marked(Mark::Doing, &format!("building {}", self.name), "minutes, or seconds with a warm build cache");
        let partial = output.with_file_name(format!("{}.partial", self.name));
        let mut go = go(self.module);
        match self.form {
            Form::Command => go.arg("build"),
            Form::Tests => go.args(["test", "-c"]),
            Form::WithSeccomp => go.args(["build", "-tags", "seccomp netgo osusergo"]).envs(seccomp(layout)),
        };
        go.args(["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", &self.linker_flags()?, "-o"]);
        program::run(go.arg(&partial).arg(self.package)).with_context(|| format!("failed to build {}", self.name))?;
        fs::rename(&partial, output).with_context(|| format!("failed to rename {}", partial.display()))?;
        let elapsed = begin.elapsed().as_secs();
        Screen::Stderr.marked(Mark::Done, &format!("{} (built in {elapsed} s)", self.name), self.package);
        Ok(())
    }

    fn linker_flags(&self) -> Result<String> {
        let mut flags = "-s -w".to_owned();
        if self.module == KUBERNETES {
            flags += &version_flags(&go_mod(KUBERNETES)?)?;
        }
        if self.form == Form::WithSeccomp {
            flags += " -linkmode external -extldflags -static";
        }
        Ok(flags)
    }
}

/// The environment for a program with Debian's libseccomp. `true` replaces pkg-config, because the paths are known.
fn seccomp(layout: &Layout) -> [(&'static str, String); 4] {
    let root = layout.debian().join("seccomp/usr");
    [
        ("CGO_ENABLED", "1".to_owned()),
        ("PKG_CONFIG", "true".to_owned()),
        ("CGO_CFLAGS", format!("-I{}", root.join("include").display())),
        ("CGO_LDFLAGS", format!("-L{} -lseccomp", root.join(format!("lib/{ARCH}-linux-gnu")).display())),
    ]
}

/// A command of Go in the directory of a module.
fn go(module: &str) -> Command {
    let mut go = program::command("go");
    go.current_dir(directory(module)).env("CGO_ENABLED", "0").env("GOWORK", "off").env("GOFLAGS", "");
    if env::var_os("GOTOOLCHAIN").is_none() {
        // Some distributions disable the download of Go, but go.mod may require a newer one than theirs.
        go.env("GOTOOLCHAIN", "auto");
    }
    go
}

fn directory(module: &str) -> PathBuf {
    workspace::root().join("tests/cluster").join(module)
}

fn go_mod(module: &str) -> Result<String> {
    let path = directory(module).join("go.mod");
    fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

/// Linker flags that set the version of Kubernetes. Without them all programs report v0.0.0, and refuse each other.
fn version_flags(go_mod: &str) -> Result<String> {
    const VARIABLES: &str = "k8s.io/component-base/version";
    let line = go_mod.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"));
    let version = line.and_then(|line| line.split_whitespace().next()).context("go.mod has no version of k8s.io/kubernetes")?;
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    Ok(format!(" -X {VARIABLES}.gitVersion=v{version} -X {VARIABLES}.gitMajor={major} -X {VARIABLES}.gitMinor={minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_comes_from_the_module() {
        let flags = version_flags("require (\n\tk8s.io/kubernetes v1.37.2 // indirect\n)\n").unwrap_or_default();
        let variable = "k8s.io/component-base/version";
        assert_eq!(flags, format!(" -X {variable}.gitVersion=v1.37.2 -X {variable}.gitMajor=1 -X {variable}.gitMinor=37"));
        assert!(version_flags("replace k8s.io/api => k8s.io/api v0.37.2\n").is_err());
    }
}
