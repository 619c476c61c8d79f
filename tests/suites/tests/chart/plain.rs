//! `deploy/portmap.yaml` is the chart with default values, for `kubectl apply`.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use portmap_suites::command::is_update;

use crate::helm::{Release, chart_file, template};
use crate::render::difference;

const PLAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/portmap.yaml");

const RELEASE: Release = Release { name: "portmap", namespace: "portmap-system" };

#[test]
fn the_plain_manifest_is_the_rendered_chart() -> Result<()> {
    let found = fs::read_to_string(PLAIN).with_context(|| format!("failed to read {PLAIN}"))?;
    let header: String = found.split_inclusive('\n').take_while(|line| line.starts_with('#')).collect();
    ensure!(header.contains("cargo xtask test chart"), "the first comment should have the command that writes the file");
    let rendered = template(RELEASE, &["--skip-tests", "--set", "namespace.create=true"])?.expect(0)?.stdout;
    let expected = header + &without_marks(&rendered);
    if is_update("UPDATE_DOCS") {
        return Ok(fs::write(PLAIN, expected)?);
    }
    let difference = difference(&expected, &found);
    ensure!(difference.is_none(), "UPDATE_DOCS=1 rewrites deploy/portmap.yaml:{}", difference.unwrap_or_default());
    Ok(())
}

/// The documents without Helm's comments about their files, and without empty lines.
fn without_marks(rendered: &str) -> String {
    let lines = rendered.lines().filter(|line| !line.is_empty() && !line.starts_with("# Source: "));
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    text.strip_prefix("---\n").map(str::to_owned).unwrap_or(text)
}

#[test]
fn the_chart_has_the_version_of_the_workspace() -> Result<()> {
    let text = fs::read_to_string(chart_file("Chart.yaml"))?;
    for field in ["version", "appVersion"] {
        let line = format!("{field}: {}", env!("CARGO_PKG_VERSION"));
        ensure!(text.lines().any(|found| found == line), "Chart.yaml should have the line {line:?}");
    }
    Ok(())
}
