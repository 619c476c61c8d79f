//! Golden cases: the findings about each directory of `tests/lint`.
//!
//! A case has `input.yaml`, `input.json` or a directory `input`, and the expected output in `findings.txt`. The first comment
//! of the input states the rule. `arguments.txt` has further arguments, one on each line. `UPDATE_CASES=1` rewrites every
//! `findings.txt`. Read the difference before you commit it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use portmap_suites::command::is_update;

use crate::harness::lint;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../lint");

#[test]
fn cases() -> Result<()> {
    let mut cases: Vec<PathBuf> = fs::read_dir(CASES)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    cases.sort();
    ensure!(!cases.is_empty(), "{CASES} has no case");
    let failures: Vec<String> = cases.iter().filter_map(|case| check(case).err()).map(|error| format!("{error:#}")).collect();
    assert!(failures.is_empty(), "{} of {} cases fail\n\n{}\n", failures.len(), cases.len(), failures.join("\n\n"));
    println!("{} cases", cases.len());
    Ok(())
}

fn check(case: &Path) -> Result<()> {
    let input = ["input.yaml", "input.json", "input"].into_iter().find(|name| case.join(name).exists());
    let input = input.with_context(|| format!("{} has no input", case.display()))?;
    let arguments = fs::read_to_string(case.join("arguments.txt")).unwrap_or_default();
    let arguments: Vec<&str> = arguments.lines().chain([input]).collect();
    let outcome = lint(case, &arguments)?;
    let found = outcome.stdout + &outcome.stderr;
    let findings = case.join("findings.txt");
    if is_update("UPDATE_CASES") {
        fs::write(&findings, &found)?;
    }
    let expected = fs::read_to_string(&findings).unwrap_or_default();
    ensure!(found == expected, "{}\n--- expected\n{expected}+++ found\n{found}", case.display());
    Ok(())
}
