//! `values.yaml`, its schema and the table in the chart's `README.md` agree.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use portmap_suites::command::is_update;
use serde_json::Value;

use crate::helm::chart_file;

const BEGIN: &str = "<!-- values: UPDATE_DOCS=1 cargo xtask test chart -->\n";
const END: &str = "<!-- end of values -->\n";

/// A value with its comment in `values.yaml`.
#[derive(Debug)]
struct Row {
    /// The path of the value, such as `image.tag`.
    path: String,
    comment: String,
}

#[test]
fn the_readme_has_all_values() -> Result<()> {
    let readme = fs::read_to_string(chart_file("README.md"))?;
    let (before, rest) = readme.split_once(BEGIN).context("README.md has no table of values")?;
    let (found, after) = rest.split_once(END).context("the table of values has no end")?;
    let table = table()?;
    if is_update("UPDATE_DOCS") {
        return Ok(fs::write(chart_file("README.md"), [before, BEGIN, &table, END, after].concat())?);
    }
    ensure!(found == table, "UPDATE_DOCS=1 rewrites the table in the chart's README.md, which should be:\n{table}");
    Ok(())
}

fn table() -> Result<String> {
    let values = values()?;
    let mut table = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    for Row { path, comment } in rows(&fs::read_to_string(chart_file("values.yaml"))?) {
        let pointer = format!("/{}", path.replace('.', "/"));
        let default = values.pointer(&pointer).with_context(|| format!("values.yaml has no {path}"))?;
        writeln!(table, "| `{path}` | `{default}` | {comment} |")?;
    }
    Ok(table)
}

fn values() -> Result<Value> {
    Ok(serde_saphyr::from_str(&fs::read_to_string(chart_file("values.yaml"))?)?)
}

/// The values that have a comment above them.
fn rows(text: &str) -> Vec<Row> {
    let (mut rows, mut comment, mut parents) = (Vec::new(), Vec::new(), Vec::<(usize, &str)>::new());
    for line in text.lines() {
        let content = line.trim_start();
        if let Some(part) = content.strip_prefix("# ") {
            comment.push(part);
            continue;
        }
        let depth = line.len() - content.len();
        if let Some((key, _)) = content.split_once(':').filter(|_| !content.starts_with('-')) {
            parents.retain(|(parent, _)| *parent < depth);
            parents.push((depth, key));
            if !comment.is_empty() {
                let path = parents.iter().map(|(_, key)| *key).collect::<Vec<_>>().join(".");
                rows.push(Row { path, comment: comment.join(" ").replace('|', "\\|") });
            }
        }
        comment.clear();
    }
    rows
}

#[test]
fn each_value_has_a_comment_and_a_schema() -> Result<()> {
    let rows = rows(&fs::read_to_string(chart_file("values.yaml"))?);
    let documented: BTreeSet<_> = rows.into_iter().map(|row| row.path).collect();
    compare("", &values()?, &schema()?, &documented)
}

fn schema() -> Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(chart_file("values.schema.json"))?)?)
}

/// Fails unless both have the same values at this path, and each value or its parent has a comment.
fn compare(path: &str, values: &Value, schema: &Value, documented: &BTreeSet<String>) -> Result<()> {
    let Some((values, properties)) = values.as_object().zip(schema["properties"].as_object()) else {
        bail!("{path} has no comment in values.yaml");
    };
    let keys: BTreeSet<_> = values.keys().chain(properties.keys()).collect();
    for key in keys.into_iter().filter(|key| *key != "global") {
        let child = format!("{path}{key}");
        let (Some(value), Some(property)) = (values.get(key), properties.get(key)) else {
            bail!("{child} is only in one of values.yaml and values.schema.json");
        };
        if !documented.contains(&child) {
            compare(&format!("{child}."), value, property, documented)?;
        }
    }
    Ok(())
}

#[test]
fn the_schema_knows_all_fields_of_its_objects() -> Result<()> {
    fn check(place: &str, schema: &Value) -> Result<usize> {
        let mut count = 0;
        if schema.get("properties").is_some() {
            ensure!(schema["additionalProperties"] == false, "{place} takes unknown values");
            count = 1;
        }
        for (key, child) in schema.as_object().into_iter().flatten() {
            count += check(&format!("{place}/{key}"), child)?;
        }
        Ok(count)
    }
    let objects = check("", &schema()?)?;
    ensure!(objects > 10, "the schema has only {objects} objects");
    Ok(())
}
