//! Golden cases: the output of `portmap resolve` for each directory of `tests/cases`.
//!
//! A case has these files:
//!
//! - `input.yaml`, `input.json`, or a directory `input` with several files. In YAML, the first comment states the rule, and the
//!   second cites its heading in `docs/semantics.md`. In JSON, a field `//` does both.
//! - `table.json`: the expected output of `-o json`.
//! - `warnings.txt`, if warnings are expected: a part of each line of standard error, in order.
//! - `arguments.txt`, optional: further arguments, one on each line.
//!
//! `UPDATE_CASES=1` rewrites every `table.json`. Read the difference before you commit it.
//!
//! Needs: nothing.

mod json;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use portmap_suites::command::{binary, is_update};
use serde_json::Value;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../cases");
const SEMANTICS: &str = include_str!("../../../../docs/semantics.md");

#[test]
fn cases() -> Result<()> {
    let portmap = binary()?;
    let cases = directories(Path::new(CASES))?;
    assert!(!cases.is_empty(), "{CASES} has no case");
    let update = is_update("UPDATE_CASES");
    let mut failures = Vec::new();
    for case in &cases {
        let differences = check(&portmap, case, update).unwrap_or_else(|error| vec![format!("{error:#}")]);
        if !differences.is_empty() {
            failures.push(format!("{}\n  {}", case.display(), differences.join("\n  ")));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases fail\n\n{}\n", failures.len(), cases.len(), failures.join("\n\n"));
    println!("{} cases", cases.len());
    Ok(())
}

/// A case names its rule by an anchor, such as `docs/semantics.md#source-ranges`.
#[test]
fn cases_cite_headings_of_the_semantics() -> Result<()> {
    let anchors: BTreeSet<String> = SEMANTICS.lines().filter(|line| line.starts_with("##")).map(anchor).collect();
    for case in directories(Path::new(CASES))? {
        let text = text_of(&input(&case)?)?;
        let (_, cited) =
            text.split_once("docs/semantics.md#").with_context(|| format!("{} cites no heading", case.display()))?;
        let cited: String = cited.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        ensure!(anchors.contains(&cited), "{} cites {cited:?}, which is no heading of docs/semantics.md", case.display());
    }
    Ok(())
}

/// The anchor of a heading in links to it, such as `source-ranges` for `## Source ranges`.
fn anchor(heading: &str) -> String {
    heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-")
}

/// The text of a file, or the concatenated texts of all files of a directory.
fn text_of(input: &Path) -> Result<String> {
    if !input.is_dir() {
        return read(input);
    }
    let mut text = String::new();
    for entry in fs::read_dir(input).with_context(|| format!("failed to list {}", input.display()))? {
        text += &read(&entry?.path())?;
    }
    Ok(text)
}

fn directories(parent: &Path) -> Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(parent).with_context(|| format!("failed to list {}", parent.display()))? {
        directories.extend(Some(entry?.path()).filter(|path| path.is_dir()));
    }
    directories.sort();
    Ok(directories)
}

/// The differences between the expected and the printed output, and the exit status if the command failed. With `update`, the
/// output first replaces `table.json`.
fn check(portmap: &Path, case: &Path, update: bool) -> Result<Vec<String>> {
    let output = resolve(portmap, &input(case)?, &optional(&case.join("arguments.txt"))?)?;
    let mut differences = Vec::new();
    if !output.status.success() {
        differences.push(format!("the command ended with {}", output.status));
    }
    let table = case.join("table.json");
    if update {
        fs::write(&table, &output.stdout).with_context(|| format!("failed to write {}", table.display()))?;
    }
    let expected = serde_json::from_str(&read(&table)?).context("table.json is not an array")?;
    let printed = serde_json::from_slice(&output.stdout).context("the output is not a JSON array")?;
    differences.extend(compare_rows(expected, printed));
    let expected = optional(&case.join("warnings.txt"))?;
    differences.extend(compare_warnings(&expected, &String::from_utf8_lossy(&output.stderr)));
    Ok(differences)
}

fn input(case: &Path) -> Result<PathBuf> {
    let inputs: Vec<PathBuf> = ["input.yaml", "input.json", "input"].map(|name| case.join(name)).into();
    let [input]: [PathBuf; 1] = match inputs.into_iter().filter(|path| path.exists()).collect::<Vec<_>>().try_into() {
        Ok(input) => input,
        Err(found) => bail!("expected one of input.yaml, input.json and input, but found {}", found.len()),
    };
    Ok(input)
}

fn resolve(portmap: &Path, input: &Path, arguments: &str) -> Result<Output> {
    let mut command = Command::new(portmap);
    command.args(["resolve", "--node-name", "node-1", "-o", "json", "--manifests"]).arg(input).args(arguments.lines());
    command.stdin(Stdio::null()).output().with_context(|| format!("failed to run {}", portmap.display()))
}

fn read(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("there is no {}; UPDATE_CASES=1 creates it", path.display()),
        text => text.with_context(|| format!("failed to read {}", path.display())),
    }
}

/// The text of an optional file of a case; empty if the file does not exist.
fn optional(path: &Path) -> Result<String> {
    if path.exists() { read(path) } else { Ok(String::new()) }
}

/// One line for each row that is missing or unexpected. If both have the same rows, the expected order. `None` if nothing
/// differs.
fn compare_rows(expected: Vec<Value>, printed: Vec<Value>) -> Option<String> {
    if expected == printed {
        return None;
    }
    let [expected, printed] = [expected, printed].map(|rows| rows.iter().map(Value::to_string).collect::<Vec<_>>());
    let [wanted, found] = [&expected, &printed].map(|rows| rows.iter().collect::<BTreeSet<_>>());
    if wanted == found {
        return Some(format!("the rows should be in this order:\n    {}", expected.join("\n    ")));
    }
    let mut text = "the table differs (- expected, + printed):".to_owned();
    for (sign, row) in wanted.difference(&found).map(|row| ('-', row)).chain(found.difference(&wanted).map(|row| ('+', row))) {
        write!(text, "\n    {sign} {row}").ok()?;
    }
    Some(text)
}

fn compare_warnings(expected: &str, printed: &str) -> Option<String> {
    let [wanted, found] = [expected, printed].map(|text| text.lines().collect::<Vec<_>>());
    let agree = wanted.len() == found.len() && wanted.iter().zip(&found).all(|(part, line)| line.contains(part));
    let show = |lines: &[&str]| if lines.is_empty() { "nothing".to_owned() } else { format!("\n    {}", lines.join("\n    ")) };
    (!agree).then(|| format!("expected standard error: {}\n  but got: {}", show(&wanted), show(&found)))
}
