//! `portmap explain` decodes only a part of the objects in JSON. It must say the same as for YAML, of which it decodes all.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use portmap_suites::command::binary;
use serde_json::{Value, json};

use super::{CASES, directories, optional, read};

#[test]
fn explanations_are_the_same_for_json() -> Result<()> {
    let portmap = binary()?;
    let directory = tempfile::tempdir()?;
    let mut count = 0;
    for case in directories(Path::new(CASES))? {
        let yaml = case.join("input.yaml");
        if !yaml.exists() {
            continue;
        }
        let items: Vec<Value> = serde_saphyr::from_multiple(&read(&yaml)?)?;
        let json = directory.path().join("input.json");
        fs::write(&json, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
        let arguments = optional(&case.join("arguments.txt"))?;
        for target in targets(&case)? {
            let [expected, found] = [&yaml, &json].map(|file| explain(&portmap, file, &target, &arguments));
            ensure!(expected? == found?, "{target} of {}", case.display());
            count += 1;
        }
    }
    ensure!(count > 300, "too few targets for a result: {count}");
    Ok(())
}

/// The frontends of a case, their Services, and a Service that does not exist.
fn targets(case: &Path) -> Result<BTreeSet<String>> {
    let rows: Vec<Value> = serde_json::from_str(&read(&case.join("table.json"))?)?;
    let text = |row: &Value, field: &str| row[field].as_str().map(str::to_owned).context("a row lacks a field");
    let mut targets: BTreeSet<String> = ["svc/missing".to_owned()].into();
    for row in &rows {
        let (frontend, service) = (text(row, "frontend")?, text(row, "service")?);
        let (namespace, name) = service.split_once('/').context("a Service without a namespace")?;
        targets.insert(format!("svc/{name}.{namespace}"));
        if !frontend.starts_with('*') {
            targets.insert(frontend.replace("/TCP", "").replace("/UDP", "/udp"));
        }
    }
    Ok(targets)
}

/// The exit code and the output.
fn explain(portmap: &Path, manifests: &Path, target: &str, arguments: &str) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(portmap);
    command.args(["explain", target, "--node-name", "node-1", "-o", "json", "--manifests"]).arg(manifests);
    let output = command.args(arguments.lines()).stdin(Stdio::null()).output().context("failed to run portmap")?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}
