//! The golden cases, the linter, and values that the chart refuses.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use portmap_suites::command::is_update;
use serde_json::{Value, json};

use crate::helm::{CHART, EDGE, TESTS, chart_file, helm, objects, template};

/// The directories of the cases, in order.
pub fn cases() -> Result<Vec<PathBuf>> {
    let directory = Path::new(TESTS).join("cases");
    let entries = fs::read_dir(&directory).with_context(|| format!("failed to list {}", directory.display()))?;
    let mut cases = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    cases.sort();
    ensure!(!cases.is_empty(), "{} has no case", directory.display());
    Ok(cases)
}

/// The path of a case's values, as an argument.
pub fn values_of(case: &Path) -> Result<String> {
    case.join("values.yaml").into_os_string().into_string().ok().context("the path is no text")
}

#[test]
fn the_cases_are_rendered_as_expected() -> Result<()> {
    let mut failures = Vec::new();
    for case in cases()? {
        let expected = case.join("rendered.yaml");
        let rendered = template(EDGE, &["--values", &values_of(&case)?])?.expect(0)?.stdout;
        if is_update("UPDATE_CASES") {
            fs::write(&expected, &rendered)?;
        }
        let text = fs::read_to_string(&expected).with_context(|| format!("failed to read {}", expected.display()))?;
        if let Some(difference) = difference(&text, &rendered) {
            failures.push(format!("{}:{difference}", expected.display()));
        }
    }
    ensure!(failures.is_empty(), "UPDATE_CASES=1 rewrites these:\n{}", failures.join("\n"));
    Ok(())
}

/// The number of the first line that differs, with both lines.
pub fn difference(expected: &str, found: &str) -> Option<String> {
    let (mut expected, mut found) = (expected.lines(), found.lines());
    (1..).map(|number| (number, expected.next(), found.next())).find_map(|(number, expected, found)| {
        let ended = expected.is_none() && found.is_none();
        (ended || expected != found).then(|| (!ended).then(|| format!("{number}: expected {expected:?}, but found {found:?}")))
    })?
}

#[test]
fn the_linter_finds_nothing() -> Result<()> {
    let mut arguments = vec![None];
    for case in cases()? {
        arguments.push(Some(values_of(&case)?));
    }
    for values in arguments {
        let given = values.iter().flat_map(|path| ["--values", path]).collect::<Vec<_>>();
        let outcome = helm(&[&["lint", "--strict", CHART], given.as_slice()].concat())?.expect(0)?;
        ensure!(outcome.stdout.contains("1 chart(s) linted, 0 chart(s) failed"), "{outcome:?}");
    }
    Ok(())
}

#[test]
fn wrong_values_are_refused() -> Result<()> {
    for (value, reason) in [
        ("prometheus.enbled=true", "at '/prometheus': additional properties 'enbled' not allowed"),
        ("toleration=all", "at '': additional properties 'toleration' not allowed"),
        ("livenessProbe.failureTreshold=1", "at '/livenessProbe': additional properties 'failureTreshold' not allowed"),
        ("healthz.port=0", "at '/healthz/port': minimum: got 0, want 1"),
        ("image.digest=sha256:12", "at '/image/digest': 'sha256:12' does not match pattern"),
        ("serviceMonitor.enabled=true", "serviceMonitor.enabled needs a prometheus.address that Prometheus can reach"),
        ("podMonitor.enabled=true,prometheus.enabled=false", "podMonitor.enabled needs prometheus.enabled"),
        ("podMonitor.enabled=true,serviceMonitor.enabled=true", "exclude each other"),
    ] {
        let outcome = template(EDGE, &["--set", value])?.expect(1)?;
        ensure!(outcome.stderr.contains(reason), "--set {value}: {}", outcome.stderr);
    }
    Ok(())
}

#[test]
fn the_dashboard_is_in_a_config_map() -> Result<()> {
    let given = ["--set", "grafanaDashboard.enabled=true,grafanaDashboard.annotations.folder=nodes"];
    let objects = objects(EDGE, &given)?;
    let map = objects.iter().find(|object| object["kind"] == "ConfigMap").context("no ConfigMap")?;
    ensure!(map["metadata"]["labels"]["grafana_dashboard"] == "1", "{}", map["metadata"]);
    ensure!(map["metadata"]["annotations"] == json!({"folder": "nodes"}), "{}", map["metadata"]);
    let text = map["data"]["portmap.json"].as_str().context("no dashboard")?;
    let [found, expected] = [text.to_owned(), fs::read_to_string(chart_file("files/dashboard.json"))?]
        .map(|text| serde_json::from_str::<Value>(&text));
    ensure!(found? == expected?, "the ConfigMap has another dashboard");
    Ok(())
}
