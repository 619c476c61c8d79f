//! The forms of the output, and the options that change it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{directory, lint, shell};

/// A Service with a note (PM130), a warning (PM002) and an error (PM106).
const ALL_LEVELS: &str = "apiVersion: v1
kind: Service
metadata: {name: web, annotations: {portmap.io/lint-ignore: x}}
spec:
  type: LoadBalancer
  ports: [{port: 80, targetPort: '80'}]
";

#[test]
fn denied_levels_end_with_1() -> Result<()> {
    let files = directory(&[("a.yaml", ALL_LEVELS)])?;
    let code = |arguments: &[&str]| Ok::<_, anyhow::Error>(lint(files.path(), arguments)?.code);
    assert_eq!(code(&["a.yaml"])?, Some(1));
    assert_eq!(code(&["--ignore", "PM106", "a.yaml"])?, Some(0));
    assert_eq!(code(&["--ignore", "PM106", "--deny", "warnings", "a.yaml"])?, Some(1));
    assert_eq!(code(&["--ignore", "PM106,pm002", "--deny", "warnings", "a.yaml"])?, Some(0));
    assert_eq!(code(&["--ignore", "PM106", "--ignore", "PM002", "--deny", "notes", "a.yaml"])?, Some(1));
    assert_eq!(code(&["--ignore", "PM106,PM002,PM130", "--deny", "notes", "a.yaml"])?, Some(0));
    Ok(())
}

#[test]
fn json_has_every_field() -> Result<()> {
    let files = directory(&[("a.yaml", ALL_LEVELS)])?;
    let outcome = lint(files.path(), &["-o", "json", "a.yaml"])?.expect(1)?;
    let rows: Vec<Value> = serde_json::from_str(&outcome.stdout)?;
    let levels: Vec<_> = rows.iter().map(|row| (&row["line"], &row["level"], &row["code"])).collect();
    assert_eq!(json!(levels), json!([[3, "warning", "PM002"], [5, "note", "PM130"], [6, "error", "PM106"]]));
    let fields: Vec<&String> = rows[0].as_object().context("an object")?.keys().collect();
    assert_eq!(json!(fields), json!(["code", "file", "kind", "level", "line", "mend", "name", "namespace", "what", "why"]));
    assert_eq!(rows[0]["file"], "a.yaml");
    let none = lint(files.path(), &["-o", "json", "--ignore", "PM106,PM002,PM130", "a.yaml"])?.expect(0)?;
    assert_eq!(none.stdout, "[]\n");
    Ok(())
}

#[test]
fn sarif_refers_to_its_rules() -> Result<()> {
    let files = directory(&[("a b/a.yaml", ALL_LEVELS)])?;
    let outcome = lint(files.path(), &["-o", "sarif", "./a b/a.yaml"])?.expect(1)?;
    let log: Value = serde_json::from_str(&outcome.stdout)?;
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let results = run["results"].as_array().context("results")?;
    ensure!(results.len() == 3, "{results:#?}");
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().context("an index")?)?;
        assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "a%20b/a.yaml");
        ensure!(place["region"]["startLine"].as_u64() >= Some(1), "{place}");
        assert_eq!(result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"], "Service default/web");
    }
    Ok(())
}

#[test]
fn github_commands_are_escaped() -> Result<()> {
    let files = directory(&[("a,b.yaml", ALL_LEVELS)])?;
    let outcome = lint(files.path(), &["-o", "github", "a,b.yaml"])?.expect(1)?;
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    for (line, start) in lines.iter().zip(["::warning file=a%2Cb.yaml,line=3,title=PM002::", "::notice ", "::error "]) {
        ensure!(line.starts_with(start) && line.contains("%0Awhy: "), "{line}");
    }
    assert_eq!(lines.len(), 3);
    Ok(())
}

#[test]
fn rules_are_listed_and_explained() -> Result<()> {
    let files = directory(&[])?;
    let outcome = lint(files.path(), &["--list-rules"])?.expect(0)?;
    ensure!(outcome.stdout.starts_with("CODE") && outcome.stdout.contains("PM150  error"), "{outcome:#?}");
    let outcome = lint(files.path(), &["--explain", "pm150"])?.expect(0)?;
    for part in ["error[PM150]", "why: ", "mend: ", "portmap.io/lint-ignore: PM150"] {
        ensure!(outcome.stdout.contains(part), "{part}: {outcome:#?}");
    }
    Ok(())
}

#[test]
fn a_closed_pipe_gives_no_error_message() -> Result<()> {
    let files = directory(&[("a.yaml", ALL_LEVELS)])?;
    let outcome = shell(files.path(), "portmap lint -o sarif a.yaml | head -c 10")?.expect(0)?;
    ensure!(outcome.stderr.is_empty(), "{outcome:#?}");
    Ok(())
}
