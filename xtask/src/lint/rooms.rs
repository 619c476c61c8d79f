//! Checks the imports between the rooms of `portmap/src` against the table in `docs/architecture.md`.
//!
//! A room is a first-level module of the library. The table lists each room with the rooms that it imports: no more, no less,
//! and without a circle. The command line (`main.rs`, `cli`) may import every room. Tests may, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

/// The heading above the table.
const HEADING: &str = "## Which room may import which";

/// Files and directories that are no rooms: the command line, and the root of the library.
const BINARY: [&str; 3] = ["main", "cli", "lib"];

/// Each room, and the rooms that it imports.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Fails if the table and the code differ, or if rooms import each other in a circle. The error lists every fault.
pub fn check() -> Result<()> {
    let root = workspace::root();
    let document = root.join("docs/architecture.md");
    let text = fs::read_to_string(&document).with_context(|| format!("failed to read {}", document.display()))?;
    let allowed = table(&text);
    let found = imports(&root.join("portmap/src"))?;
    let mut faults = differences(&allowed, &found);
    faults.extend(circle(&found).map(|rooms| format!("the rooms {} import each other in a circle", rooms.join(", "))));
    ensure!(faults.is_empty(), "the table \"{HEADING}\" in docs/architecture.md does not hold:\n  {}", faults.join("\n  "));
    Ok(())
}

/// Reads the table from the document. Each row has a room and its imports, both in backticks.
fn table(document: &str) -> Graph {
    let section = document.split_once(HEADING).map_or("", |(_, rest)| rest.split("\n## ").next().unwrap_or_default());
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('|'));
    let quoted = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    rows.filter_map(|(room, imports)| Some((quoted(&format!("`{room}")).pop()?, quoted(imports).into_iter().collect())))
        .collect()
}

/// Reads the imports between rooms from all files below `source`, without tests.
fn imports(source: &Path) -> Result<Graph> {
    let mut graph = Graph::new();
    for file in files(source)? {
        let relative = file.strip_prefix(source)?.with_extension("");
        let mut parts = relative.iter().map(|part| part.to_string_lossy().into_owned());
        let Some(room) = parts.next().filter(|room| !BINARY.contains(&room.as_str())) else { continue };
        let imported = graph.entry(room.clone()).or_default();
        if relative.iter().any(|part| part == "tests") {
            continue;
        }
        let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        imported.extend(imported_by(&text).into_iter().filter(|other| *other != room));
    }
    Ok(graph)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("failed to list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// The names after `crate::` in all paths, outside of comments and unit tests.
fn imported_by(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = lines.join("\n");
    code.split("crate::").skip(1).flat_map(first_segments).collect()
}

/// The first segment of a path, or the first segments of a group of paths in braces. Capitalized names (types) are left out.
fn first_segments(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else { return segment(path).into_iter().collect() };
    let (mut depth, mut is_start, mut segments) = (0, true, Vec::new());
    for (index, character) in group.char_indices() {
        if is_start && !character.is_whitespace() {
            segments.extend(segment(&group[index..]));
            is_start = false;
        }
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            _ => {}
        }
    }
    segments
}

fn segment(path: &str) -> Option<String> {
    let end = path.find(|character: char| !character.is_ascii_alphanumeric() && character != '_').unwrap_or(path.len());
    let name = &path[..end];
    name.starts_with(|character: char| character.is_ascii_lowercase()).then(|| name.to_owned())
}

fn differences(allowed: &Graph, found: &Graph) -> Vec<String> {
    let rooms: BTreeSet<&String> = allowed.keys().chain(found.keys()).collect();
    let mut faults = Vec::new();
    for room in rooms {
        match (allowed.get(room), found.get(room)) {
            (Some(allowed), Some(found)) => {
                faults.extend(found.difference(allowed).map(|other| format!("{room} imports {other}")));
                faults.extend(allowed.difference(found).map(|other| format!("{room} does not import {other} any more")));
            }
            (None, Some(_)) => faults.push(format!("the room {room} is not in the table")),
            (Some(_), None) => faults.push(format!("there is no room {room}")),
            (None, None) => {}
        }
    }
    faults
}

/// The rooms of a circle of imports, and the rooms that import these; `None` without a circle.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    let mut rest = graph.clone();
    loop {
        let done: BTreeSet<String> = rest
            .iter()
            .filter(|(_, imports)| !imports.iter().any(|room| rest.contains_key(room)))
            .map(|(room, _)| room.clone())
            .collect();
        if done.is_empty() {
            return (!rest.is_empty()).then(|| rest.into_keys().collect());
        }
        rest.retain(|room, _| !done.contains(room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(rows: &[(&str, &[&str])]) -> Graph {
        rows.iter().map(|(room, imports)| ((*room).to_owned(), imports.iter().map(ToString::to_string).collect())).collect()
    }

    #[test]
    fn imports_are_found_in_groups_and_in_paths() {
        let text = "use crate::{\n    maps::{Item, bpf::{self, A}},\n    model::Family,\n};\n// crate::agent\nlet x = crate::plan::slots::new();\n\
                    #[cfg(test)]\nmod tests {\n    use crate::serve;\n";
        assert_eq!(imported_by(text).into_iter().collect::<Vec<_>>(), ["maps", "model", "plan"]);
    }

    #[test]
    fn the_table_is_read_and_compared() {
        let document = format!(
            "# A\n{HEADING}\n\n| room | may import |\n|---|---|\n| `plan` | `maps`, `model` |\n| `model` | |\n\n## Next\n| `x` | `y` |\n"
        );
        let allowed = table(&document);
        assert_eq!(allowed, graph(&[("plan", &["maps", "model"]), ("model", &[])]));
        let found = graph(&[("plan", &["maps", "resolve"]), ("model", &[]), ("agent", &[])]);
        assert_eq!(
            differences(&allowed, &found),
            ["the room agent is not in the table", "plan imports resolve", "plan does not import model any more"]
        );
    }

    #[test]
    fn a_circle_is_found() {
        assert_eq!(circle(&graph(&[("a", &["b"]), ("b", &[])])), None);
        assert_eq!(circle(&graph(&[("a", &["b"]), ("b", &["a"]), ("c", &["a"])])).map(|rooms| rooms.len()), Some(3));
    }
}
