//! Runs Helm, which is built from the Go module in `tests/chart`, and promtool.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use portmap_harness::go_program::GoProgram;
use portmap_suites::command::{Outcome, finish};
use serde_json::Value;
use tempfile::TempDir;

/// The directory of the chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/chart/portmap");
/// The directory of the cases and of the tests of the alerts.
pub const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../chart");

/// A release of the chart.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// The name of the release.
    pub name: &'static str,
    /// The namespace of the release.
    pub namespace: &'static str,
}

/// A release of other names than the chart's.
pub const EDGE: Release = Release { name: "edge", namespace: "net" };

/// Runs Helm with these arguments. It reads no configuration of the user.
pub fn helm(arguments: &[&str]) -> Result<Outcome> {
    let package = "helm.sh/helm/v4/cmd/helm".to_owned();
    let helm = GoProgram { module: "chart", name: "helm", package, linker_flags: String::new() }.binary()?;
    let home = TempDir::new()?;
    let mut command = Command::new(helm);
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, home.path());
    }
    finish(command.args(arguments).env("KUBECONFIG", "/dev/null"))
}

/// Renders the chart with further arguments of `helm template`.
pub fn template(release: Release, arguments: &[&str]) -> Result<Outcome> {
    let Release { name, namespace } = release;
    helm(&[&["template", name, CHART, "--namespace", namespace], arguments].concat())
}

/// The objects of the chart, rendered with further arguments of `helm template`.
pub fn objects(release: Release, arguments: &[&str]) -> Result<Vec<Value>> {
    parse(&template(release, arguments)?.expect(0)?.stdout)
}

/// The documents of a YAML text.
pub fn parse(text: &str) -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(text).context("failed to parse the rendered chart")
}

/// Runs promtool with these arguments. Returns its output if it succeeds.
pub fn promtool(directory: &Path, arguments: &[&str]) -> Result<String> {
    let output = match Command::new("promtool").args(arguments).current_dir(directory).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("promtool is not in the PATH: run `cargo xtask test chart`"),
        other => other.context("failed to run promtool")?,
    };
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if !output.status.success() {
        bail!("promtool {}: {}\n{stdout}{stderr}", arguments.join(" "), output.status);
    }
    Ok(stdout)
}

/// A file of the chart.
pub fn chart_file(name: &str) -> PathBuf {
    Path::new(CHART).join(name)
}
