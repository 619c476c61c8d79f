//! A whole run of the demo, with a recording.

use std::fs;

use anyhow::Result;
use portmap_suites::command::finish;

use super::demo;

/// The greatest width of a line in columns.
const WIDTH: usize = 100;

/// The greatest size of a picture in bytes.
const SIZE: usize = 150_000;

/// Texts of the steps about mistakes and about bars.
const SHOWN: [&str; 8] = [
    "they need not match",
    "ECONNREFUSED",
    "note[PM103]",
    "NOT OK  Service default/cart",
    "+ targetPort: 8080",
    "400 of 400 queries",
    "████",
    "all as expected",
];

#[test]
fn the_demo_succeeds_and_is_recorded() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("demo.svg");
    let outcome = finish(demo()?.arg("--record").arg(&file))?.expect(0)?;
    assert!(outcome.stderr.is_empty(), "{outcome:#?}");
    for part in SHOWN {
        assert!(outcome.stdout.contains(part), "no `{part}` in {}", outcome.stdout);
    }
    assert!(outcome.stdout.contains("\x1b[1m"), "a recording has colours");
    for line in outcome.stdout.lines().filter(|line| !line.starts_with("Wrote ")) {
        assert!(columns(line) <= WIDTH, "longer than {WIDTH} columns: {line}");
    }
    let picture = fs::read_to_string(&file)?;
    for part in ["<svg", "need not match", "note[PM103]", "████", "prefers-reduced-motion", "</svg>\n"] {
        assert!(picture.contains(part), "no `{part}` in {picture}");
    }
    assert!(picture.len() < SIZE && !picture.contains('\x1b'));
    Ok(())
}

/// The number of characters that a terminal shows: without escape sequences and carriage returns.
fn columns(line: &str) -> usize {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default();
    let rest = parts.map(|part| part.split_once('m').map_or(part, |(_, text)| text));
    let shown = [first].into_iter().chain(rest).flat_map(str::chars);
    shown.filter(|character| *character != '\r').count()
}
