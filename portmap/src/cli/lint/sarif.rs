//! Findings as SARIF 2.1.0, whose words for levels are the same.

use anyhow::Result;
use portmap::lint::{
    catalog::{ALL, Rule},
    finding::Finding,
};
use serde_json::{Value, json};

use crate::cli::output;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// Prints a log with one run.
pub fn print(findings: &[Finding]) -> Result<()> {
    let driver = json!({
        "name": "portmap",
        "version": env!("CARGO_PKG_VERSION"),
        "rules": ALL.iter().map(|rule| descriptor(rule)).collect::<Vec<_>>(),
    });
    let results: Vec<Value> = findings.iter().map(result).collect();
    let run = json!({ "tool": { "driver": driver }, "columnKind": "unicodeCodePoints", "results": results });
    let log = json!({ "$schema": SCHEMA, "version": "2.1.0", "runs": [run] });
    output::print(&(serde_json::to_string_pretty(&log)? + "\n"))
}

fn descriptor(rule: &Rule) -> Value {
    let sentence = |text: &str| json!({ "text": format!("{}.", capitalized(text)) });
    json!({
        "id": rule.code,
        "shortDescription": sentence(rule.title),
        "fullDescription": sentence(rule.why),
        "help": sentence(rule.mend),
        "defaultConfiguration": { "level": rule.level.name() },
    })
}

fn result(finding: &Finding) -> Value {
    let object = finding.object();
    let text = format!("{}: {} (why: {}; mend: {})", object, finding.what, finding.rule.why, finding.mend);
    let mut location = json!({});
    if !object.is_empty() {
        location["logicalLocations"] = json!([{ "fullyQualifiedName": object, "kind": "object" }]);
    }
    if let Some((file, line)) = &finding.place {
        location["physicalLocation"] = json!({ "artifactLocation": { "uri": uri(file) }, "region": { "startLine": line } });
    }
    json!({
        "ruleId": finding.rule.code,
        "ruleIndex": ALL.iter().position(|rule| *rule == finding.rule),
        "level": finding.level.name(),
        "message": { "text": text.trim_start_matches(": ") },
        "locations": [location],
    })
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

/// The URI reference of a file: a relative path without a leading `./`, or an absolute one with a scheme.
fn uri(file: &str) -> String {
    let path = file.strip_prefix("./").unwrap_or(file);
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.extend(['%', hexadecimal(byte >> 4), hexadecimal(byte & 15)]);
        }
    }
    uri
}

fn hexadecimal(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).unwrap_or('0').to_ascii_uppercase()
}
