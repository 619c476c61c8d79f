//! Output of `portmap resolve` for valid and invalid input.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portmap_suites::command::{Outcome, as_nobody, binary, clean, finish, finish_with_input, in_time, public_copy};
use serde_json::Value;
use tempfile::TempDir;

use crate::site::service;

/// The rows of this case have different widths. One row has more backends than the table output shows.
const CASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../cases/order-of-rows/input.yaml");

fn resolve(arguments: &[&str], paths: &[&Path]) -> Result<Command> {
    let mut command = in_time(Command::new("timeout"))?;
    command.args(["resolve", "--node-name", "node-1"]).args(arguments);
    for path in paths {
        command.arg("--manifests").arg(path);
    }
    Ok(command)
}

fn outcome(arguments: &[&str], paths: &[&Path]) -> Result<Outcome> {
    finish(&mut resolve(arguments, paths)?)
}

/// Names and texts of files.
type Files<'a> = &'a [(&'a str, &'a str)];

/// Creates a directory with these files.
fn directory(files: Files) -> Result<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    for (name, text) in files {
        fs::write(directory.path().join(name), text)?;
    }
    let path = directory.path().to_owned();
    Ok((directory, path))
}

/// The only line of standard error, without `warning: `. Fails if there are more lines or none, or if the line begins
/// otherwise.
fn warning(outcome: &Outcome) -> Result<&str> {
    let mut warnings = outcome.stderr.lines();
    let warning = warnings.next().and_then(|line| line.strip_prefix("warning: "));
    warning.filter(|_| warnings.next().is_none()).with_context(|| format!("expected one warning: {outcome:#?}"))
}

#[test]
fn a_missing_path_is_named() -> Result<()> {
    let (_directory, path) = directory(&[("good.yaml", &service("web", "10.96.0.10"))])?;
    let missing = path.join("missing");
    outcome(&[], &[&missing])?.expect_error(&[&missing.to_string_lossy(), "No such file or directory"])?;
    outcome(&[], &[&path, &missing])?.expect_error(&[&missing.to_string_lossy(), "No such file or directory"])
}

#[test]
fn input_without_a_service_ends_with_1() -> Result<()> {
    let web = service("web", "10.96.0.10");
    let inputs: [(Files, &[&str]); 5] = [
        (&[], &["has no file ending in .yaml, .yml or .json", "no Service was given"]),
        (&[("empty.yaml", "")], &["no Service was given"]),
        (&[("pod.yaml", "{apiVersion: v1, kind: Pod, metadata: {name: a}}")], &["no Service was given"]),
        (&[("bad.yaml", "a: [1, 2\nb: }\n")], &["bad.yaml is neither YAML nor JSON", "no Service was given"]),
        (&[("web.txt", &web)], &["has no file ending in .yaml, .yml or .json", "no Service was given"]),
    ];
    for (files, parts) in inputs {
        let (_directory, path) = directory(files)?;
        let outcome = outcome(&["-o", "json"], &[&path])?.expect(1)?;
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        let agree = lines.len() == parts.len() && lines.iter().zip(parts).all(|(line, part)| line.contains(part));
        ensure!(agree && outcome.stdout == "[]\n", "{files:?} should give {parts:?}: {outcome:#?}");
    }
    Ok(())
}

#[test]
fn an_invalid_file_affects_only_its_own_objects() -> Result<()> {
    const BAD: [(&str, &str); 4] = [
        ("bad.yaml", "a: [1, 2\nb: }\n"),
        ("bad.json", "{\"kind\": \"Service\","),
        ("text.yml", "This is no manifest.\n"),
        ("kind.yaml", "{apiVersion: v1, kind: Service, metadata: {name: broken}, spec: {ports: 80}}"),
    ];
    for (name, text) in BAD {
        let (_directory, path) = directory(&[("good.yaml", &service("web", "10.96.0.10")), (name, text)])?;
        let outcome = outcome(&[], &[&path])?.expect(0)?;
        let warning = warning(&outcome)?;
        assert!(warning.contains(name) && warning.contains("left out"), "{warning}");
        assert!(outcome.stdout.contains("10.96.0.10:80/TCP"), "{outcome:#?}");
        finish(&mut resolve(&["--strict"], &[&path])?)?.expect(1)?;
    }
    Ok(())
}

#[test]
fn an_unreadable_file_is_named() -> Result<()> {
    let (_directory, path) = directory(&[("good.yaml", &service("web", "10.96.0.10")), ("secret.yaml", "")])?;
    let secret = path.join("secret.yaml");
    fs::write(&secret, b"\xff\xfe\x00\x01")?;
    let outcome = outcome(&[], &[&path])?.expect(0)?;
    assert!(warning(&outcome)?.contains("secret.yaml"), "{outcome:#?}");
    // Only root can read this file.
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let (_copy, portmap) = public_copy()?;
    let mut command = as_nobody(Command::new("setpriv"), &portmap);
    let outcome = finish(command.args(["resolve", "--manifests"]).arg(&path))?.expect(0)?;
    let warning = warning(&outcome)?;
    assert!(warning.contains("secret.yaml") && warning.contains("Permission denied"), "{warning}");
    assert!(outcome.stdout.contains("default/web"), "{outcome:#?}");
    Ok(())
}

#[test]
fn an_invalid_address_is_named() -> Result<()> {
    let (_directory, path) =
        directory(&[("bad.yaml", &service("broken", "10.96.0")), ("good.yaml", &service("web", "10.96.0.10"))])?;
    let outcome = outcome(&[], &[&path])?.expect(0)?;
    let warning = warning(&outcome)?;
    assert!(warning.contains("default/broken") && warning.contains("\"10.96.0\""), "{warning}");
    assert!(outcome.stdout.contains("default/web") && !outcome.stdout.contains("broken"), "{outcome:#?}");
    finish(&mut resolve(&["--strict"], &[&path])?)?.expect(1).map(drop)
}

#[test]
fn a_dash_reads_standard_input() -> Result<()> {
    let web = service("web", "10.96.0.10");
    let alone = finish_with_input(&mut resolve(&[], &[Path::new("-")])?, &web)?.expect(0)?;
    assert!(alone.stdout.contains("default/web") && alone.stderr.is_empty(), "{alone:#?}");
    let (_directory, path) = directory(&[("dns.yaml", &service("dns", "10.96.0.53"))])?;
    let both = finish_with_input(&mut resolve(&[], &[&path.join("dns.yaml"), Path::new("-")])?, &web)?.expect(0)?;
    assert!(both.stdout.contains("default/web") && both.stdout.contains("default/dns"), "{both:#?}");
    let bad = finish_with_input(&mut resolve(&[], &[Path::new("-")])?, "a: [1, 2\nb: }\n")?;
    assert!(bad.code != Some(0) && bad.stderr.contains("- is neither YAML nor JSON"), "{bad:#?}");
    Ok(())
}

#[test]
fn yaml_output_equals_json_output() -> Result<()> {
    let case = Path::new(CASE);
    let json: Value = serde_json::from_str(&outcome(&["-o", "json"], &[case])?.expect(0)?.stdout)?;
    let yaml: Value = serde_saphyr::from_str(&outcome(&["-o", "yaml"], &[case])?.expect(0)?.stdout)?;
    assert_eq!(json, yaml);
    Ok(())
}

#[test]
fn tables_are_aligned_and_plain_in_a_pipe() -> Result<()> {
    let table = outcome(&[], &[Path::new(CASE)])?.expect(0)?.stdout;
    assert!(!table.contains('\x1b'), "{table}");
    let mut lines = table.lines();
    let heading = lines.next().context("no heading")?;
    let columns = ["FRONTEND", "SERVICE", "PORT", "KIND", "ACTION", "BACKENDS"].map(|name| heading.find(name));
    assert!(columns.is_sorted() && columns.iter().all(Option::is_some), "{heading}");
    assert_eq!(lines.clone().count(), 8, "{table}");
    for line in lines {
        assert_eq!(line, line.trim_end(), "trailing blanks");
        for start in columns.into_iter().flatten().skip(1) {
            let (before, after) = line.split_at_checked(start).with_context(|| format!("too short: {line}"))?;
            assert!(before.ends_with("  ") && !after.starts_with(' '), "expected column {start} in\n{table}");
        }
    }
    assert!(table.contains("10.244.1.9:8080, and 1 more"), "{table}");
    Ok(())
}

#[test]
fn colours_appear_only_in_terminals_without_no_color() -> Result<()> {
    let line = format!("{} resolve --manifests {CASE}", binary()?.display());
    let mut in_terminal = Command::new("script");
    in_terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let coloured = finish(&mut in_terminal)?.expect(0)?;
    assert!(coloured.stdout.contains("\x1b["), "{coloured:#?}");
    let output = clean(&mut in_terminal).env("NO_COLOR", "1").output()?;
    let plain = String::from_utf8(output.stdout)?;
    assert!(plain.contains("10.96.0.9:443/TCP") && !plain.contains("\x1b["), "{plain:?}");
    Ok(())
}

#[test]
fn resolve_needs_no_privileges() -> Result<()> {
    let (_directory, path) = directory(&[("web.yaml", &service("web", "10.96.0.10"))])?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let (_copy, portmap) = public_copy()?;
    let mut command = as_nobody(Command::new("setpriv"), &portmap);
    let outcome = finish(command.args(["resolve", "-o", "json", "--manifests"]).arg(&path))?.expect(0)?;
    assert!(outcome.stdout.contains("default/web") && outcome.stderr.is_empty(), "{outcome:#?}");
    Ok(())
}
