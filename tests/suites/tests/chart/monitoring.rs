//! The dashboard and the alerts use only metrics and labels that the agent exports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use portmap::maps::{Fullness, flows::sweep::Swept};
use portmap::model::{Family, event::ObjectKind};
use portmap::serve::{Metrics, SyncKind};
use portmap_common::{MEASURED, Totals};
use serde_json::Value;

use crate::expression::{Metric, names};
use crate::helm::chart_file;
use crate::rules::alerts;

/// Metrics of Prometheus and kube-state-metrics, with their labels.
const FOREIGN: [(&str, &[&str]); 2] = [("up", &[]), ("kube_pod_status_ready", &["condition"])];
/// Labels that Prometheus adds to all metrics of a target.
const TARGET: [&str; 4] = ["instance", "job", "namespace", "pod"];

/// The values of each label of a metric.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// All metrics with all their labels, in the text of `/metrics` of an agent.
async fn exported() -> Result<BTreeMap<String, Labels>> {
    let metrics = Metrics::default();
    fill(&metrics);
    let body = axum::body::to_bytes(metrics.answer().into_body(), usize::MAX).await?;
    let mut all = BTreeMap::<String, Labels>::new();
    for line in String::from_utf8(body.into())?.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').with_context(|| format!("not a sample: {line}"))?;
        let [metric]: [Metric; 1] = names(series)?.metrics.try_into().ok().with_context(|| format!("not a series: {line}"))?;
        let labels = all.entry(metric.name).or_default();
        for condition in metric.conditions {
            labels.entry(condition.label).or_default().insert(condition.value);
        }
    }
    Ok(all)
}

/// Sets every metric that has labels, as the agent does.
fn fill(metrics: &Metrics) {
    for kind in ObjectKind::ALL {
        metrics.queued(kind);
    }
    for kind in [SyncKind::Full, SyncKind::Partial] {
        metrics.synced(kind, Duration::from_millis(1), &Family::ALL.map(|family| (family, Timestamp::now())));
    }
    for family in Family::ALL {
        metrics.set_lacking(family, "internal", 0);
        metrics.set_lacking(family, "external", 0);
    }
    let fullness = |name| Fullness { name, used: 0, capacity: 1 };
    let (flows, others): (Vec<_>, Vec<_>) =
        MEASURED.into_iter().map(fullness).partition(|map| map.name.starts_with("FLOWS") || map.name.starts_with("OPENING"));
    metrics.set_fullness(&others);
    metrics.flows.swept(&Swept { fullness: flows, ..Swept::default() });
    metrics.set_outage(None);
    metrics.set_totals(&Totals::default(), 0);
    metrics.answered_healthz(200);
    metrics.answered_livez(200);
}

/// The problem of each name in an expression that no metric of the agent explains.
fn problems(expression: &str, exported: &BTreeMap<String, Labels>) -> Result<Vec<String>> {
    let found = names(expression)?;
    let mut problems = Vec::new();
    let mut known: BTreeSet<&str> = TARGET.into();
    for metric in &found.metrics {
        let name = &metric.name;
        if let Some((_, labels)) = FOREIGN.iter().find(|(foreign, _)| foreign == name) {
            let unknown = metric.conditions.iter().filter(|it| !TARGET.contains(&&*it.label) && !labels.contains(&&*it.label));
            problems.extend(unknown.map(|it| format!("{name} has no label {}", it.label)));
            continue;
        }
        let Some(labels) = exported.get(name) else {
            problems.push(format!("there is no metric {name}"));
            continue;
        };
        known.extend(labels.keys().map(String::as_str));
        problems.extend(problem_of(metric, labels));
    }
    let unknown = found.labels.iter().filter(|label| !known.contains(label.as_str()));
    problems.extend(unknown.map(|label| format!("no metric has the label {label}")));
    Ok(problems)
}

fn problem_of(metric: &Metric, labels: &Labels) -> Option<String> {
    let name = &metric.name;
    if !metric.conditions.iter().any(|condition| condition.label == "job") {
        return Some(format!("{name} is also a metric of other jobs, such as kube-proxy: select a job"));
    }
    metric.conditions.iter().filter(|condition| !TARGET.contains(&&*condition.label)).find_map(|condition| {
        match labels.get(&condition.label) {
            None => Some(format!("{name} has no label {}", condition.label)),
            Some(values) if condition.operator == "=" && !values.contains(&condition.value) => {
                Some(format!("{name} has no {}={:?}, but {values:?}", condition.label, condition.value))
            }
            Some(_) => None,
        }
    })
}

/// The values with this key, at any depth.
fn all_of<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    if let Some(text) = value[key].as_str() {
        found.push(text);
    }
    match value {
        Value::Object(fields) => fields.values().for_each(|child| all_of(child, key, found)),
        Value::Array(items) => items.iter().for_each(|child| all_of(child, key, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The dashboard of the chart.
pub fn dashboard() -> Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(chart_file("files/dashboard.json"))?)?)
}

/// The expressions in the panels of the dashboard.
pub fn panel_expressions(dashboard: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    all_of(&dashboard["panels"], "expr", &mut found);
    found
}

#[tokio::test]
async fn all_metrics_exist() -> Result<()> {
    let exported = exported().await?;
    let (dashboard, alerts) = (dashboard()?, alerts()?);
    let mut expressions = panel_expressions(&dashboard);
    let panels = expressions.len();
    all_of(&alerts, "expr", &mut expressions);
    ensure!(panels > 20 && expressions.len() > panels + 10, "{panels} of {} are in panels", expressions.len());
    let mut all = Vec::new();
    for expression in expressions {
        all.extend(problems(expression, &exported)?.into_iter().map(|problem| format!("{problem}, in {expression}")));
    }
    ensure!(all.is_empty(), "{}", all.join("\n"));
    Ok(())
}

#[tokio::test]
async fn wrong_names_are_found() -> Result<()> {
    let exported = exported().await?;
    for (expression, problem) in [
        (r#"portmap_call_total{job="portmap"}"#, "there is no metric portmap_call_total"),
        (r#"portmap_calls_total{outcome="refused"}"#, "select a job"),
        (r#"portmap_calls_total{job="portmap",result="refused"}"#, "portmap_calls_total has no label result"),
        (r#"portmap_calls_total{job="portmap",outcome="denied"}"#, "portmap_calls_total has no outcome=\"denied\""),
        (r#"sum by (event) (portmap_calls_total{job="portmap"})"#, "no metric has the label event"),
    ] {
        let found = problems(expression, &exported)?;
        ensure!(found.iter().any(|text| text.contains(problem)), "{expression}: {found:?}");
    }
    ensure!(problems(r#"up{job="portmap"} == 0"#, &exported)?.is_empty());
    Ok(())
}

/// The texts of alerts and the legends of panels show labels that some metric has.
#[tokio::test]
async fn all_shown_labels_exist() -> Result<()> {
    let exported = exported().await?;
    let mut known: BTreeSet<&str> = TARGET.into();
    known.extend(exported.values().flat_map(|labels| labels.keys().map(String::as_str)));
    let (dashboard, alerts) = (dashboard()?, alerts()?);
    let mut texts = Vec::new();
    all_of(&dashboard["panels"], "legendFormat", &mut texts);
    for field in ["summary", "description"] {
        all_of(&alerts, field, &mut texts);
    }
    for text in texts {
        for part in text.split("{{").skip(1).filter_map(|part| part.split_once("}}")) {
            let label = part.0.split('|').next().unwrap_or_default().trim();
            let label = label.strip_prefix("$labels.").unwrap_or(label);
            ensure!(label == "$value" || known.contains(label), "no metric has the label {label}, in {text}");
        }
    }
    Ok(())
}

/// The lists of the dashboard's variables.
#[tokio::test]
async fn the_variables_of_the_dashboard_exist() -> Result<()> {
    let exported = exported().await?;
    let dashboard = dashboard()?;
    let variables = dashboard["templating"]["list"].as_array().context("no variables")?;
    let queries = variables.iter().filter_map(|variable| variable["definition"].as_str());
    let mut count = 0;
    for query in queries {
        let inner = query.strip_prefix("label_values(").with_context(|| format!("{query} lists no label"))?;
        let [metric, ..] = &names(inner)?.metrics[..] else { anyhow::bail!("{query} has no metric") };
        ensure!(exported.contains_key(&metric.name), "there is no metric {}", metric.name);
        count += 1;
    }
    ensure!(count == 2, "{count} variables");
    Ok(())
}
