//! Wrong input. The demo refuses it before it makes anything.

use anyhow::{Result, ensure};
use portmap_suites::command::{Outcome, finish};

use super::demo;

fn run(arguments: &[&str], code: i32) -> Result<Outcome> {
    let outcome = finish(demo()?.args(arguments))?.expect(code)?;
    ensure!(outcome.stdout.is_empty(), "expected no output: {outcome:#?}");
    Ok(outcome)
}

#[test]
fn pauses_need_a_terminal() -> Result<()> {
    let outcome = run(&["--interactive"], 2)?;
    assert!(outcome.stderr.starts_with("error: --interactive needs a terminal"), "{outcome:?}");
    Ok(())
}

#[test]
fn a_recording_needs_a_directory_for_its_file() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let missing = directory.path().join("missing/demo.svg");
    for file in [missing.as_path(), directory.path()] {
        let outcome = run(&["--record", &file.display().to_string()], 1)?;
        let start = format!("error: failed to write {}: ", file.display());
        assert!(outcome.stderr.starts_with(&start) && outcome.stderr.contains("directory"), "{outcome:?}");
    }
    Ok(())
}

#[test]
fn a_recording_has_no_pauses() -> Result<()> {
    for other in ["--interactive", "--keep"] {
        let outcome = run(&["--record", "demo.svg", other], 2)?;
        assert!(outcome.stderr.contains("cannot be used with"), "{outcome:?}");
    }
    Ok(())
}
