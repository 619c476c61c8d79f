//! Each rule: texts with a finding, and similar texts without one.

mod exposure;
mod policies;
mod reading;
mod routes;
mod selectors;
mod speed;
mod target_ports;

use super::{
    Settings, catalog, check,
    finding::Finding,
    set::{Origin, Set},
};

/// The findings about a set of files.
fn findings(files: &[&str]) -> Vec<Finding> {
    let mut set = Set::new(Origin::Files, "default");
    for (index, text) in files.iter().enumerate() {
        set.read(&format!("{index}.yaml"), text);
    }
    check(&set, &settings())
}

fn settings() -> Settings {
    Settings { node_ports: (30_000, 32_767), ignored: Vec::new() }
}

/// The levels and codes of the findings about a set of files: `error PM101`.
fn codes(files: &[&str]) -> Vec<String> {
    findings(files).iter().map(|finding| format!("{} {}", finding.level, finding.rule.code)).collect()
}

/// A document with this head and rest, in the flow style of YAML.
fn object(version: &str, kind: &str, name: &str, rest: &str) -> String {
    format!("---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\n{rest}\n")
}

/// The Service `web` with these ports. It selects `app: web`.
fn service(ports: &str) -> String {
    object("v1", "Service", "web", &format!("spec: {{selector: {{app: web}}, ports: [{ports}]}}"))
}

/// A Deployment with the labels `app: web` and one container with these fields.
fn deployment(name: &str, container: &str) -> String {
    workload("Deployment", name, "{app: web}", &format!("containers: [{{name: web, {container}}}]"))
}

/// A workload with these labels of its pods, and these fields of the pods' spec.
fn workload(kind: &str, name: &str, labels: &str, spec: &str) -> String {
    object("apps/v1", kind, name, &format!("spec: {{template: {{metadata: {{labels: {labels}}}, spec: {{{spec}}}}}}}"))
}

#[test]
fn codes_are_unique_and_in_order() {
    let codes: Vec<&str> = catalog::ALL.iter().map(|rule| rule.code).collect();
    assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
}
