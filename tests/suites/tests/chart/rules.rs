//! The alerts, as promtool reads and evaluates them, and the expressions of the dashboard.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helm::{EDGE, TESTS, chart_file, objects, promtool};
use crate::monitoring::{dashboard, panel_expressions};

const ALERTS: &str = "files/alerts.yaml";
const CASES: &str = "alerts.test.yaml";

/// The groups of the alerts.
pub fn alerts() -> Result<Value> {
    Ok(serde_saphyr::from_str(&fs::read_to_string(chart_file(ALERTS))?)?)
}

#[test]
fn promtool_accepts_the_alerts() -> Result<()> {
    promtool(&chart_file("files"), &["check", "rules", "--lint-fatal", "alerts.yaml"]).map(drop)
}

#[test]
fn the_alerts_fire() -> Result<()> {
    promtool(Path::new(TESTS), &["test", "rules", CASES])?;
    let cases = fs::read_to_string(Path::new(TESTS).join(CASES))?;
    for rule in alerts()?["groups"][0]["rules"].as_array().context("no rules")? {
        let name = rule["alert"].as_str().context("an alert has no name")?;
        ensure!(cases.contains(name), "{CASES} has no case for {name}");
    }
    Ok(())
}

#[test]
fn the_prometheus_rule_has_the_alerts() -> Result<()> {
    let objects = objects(EDGE, &["--set", "prometheusRule.enabled=true,nameOverride=ports"])?;
    let rule = objects.iter().find(|object| object["kind"] == "PrometheusRule").context("no PrometheusRule")?;
    let text = alerts()?.to_string().replace(r#"job=\"portmap\""#, r#"job=\"ports\""#);
    ensure!(rule["spec"] == serde_json::from_str::<Value>(&text)?, "the rules differ: {}", rule["spec"]);
    Ok(())
}

#[test]
fn promtool_accepts_the_expressions_of_the_dashboard() -> Result<()> {
    let dashboard = dashboard()?;
    let record = |(number, expression): (usize, &str)| {
        let expression = expression.replace("$__rate_interval", "5m");
        json!({"record": format!("panel:{number}"), "expr": expression})
    };
    let rules: Vec<Value> = panel_expressions(&dashboard).into_iter().enumerate().map(record).collect();
    let directory = TempDir::new()?;
    // JSON is valid YAML.
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(directory.path().join("dashboard.yaml"), groups.to_string())?;
    promtool(directory.path(), &["check", "rules", "dashboard.yaml"]).map(drop)
}
