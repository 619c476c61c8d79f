//! The examples of `docs/lint.md` show the real output, and the page has every code.
//!
//! A block of YAML whose first line is `# NAME.yaml` is a file. The files of a section are in the directory in which the
//! commands of the section run. `UPDATE_DOCS=1` writes the output of each command to the page.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use portmap::lint::catalog::ALL;
use portmap_suites::command::is_update;
use tempfile::TempDir;

use crate::harness::shell;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lint.md");

#[test]
fn the_examples_show_the_real_output() -> Result<()> {
    let text = fs::read_to_string(PAGE)?;
    let real = with_real_output(&text)?;
    if is_update("UPDATE_DOCS") {
        fs::write(PAGE, &real)?;
        return Ok(());
    }
    for (number, (expected, found)) in (1..).zip(text.lines().zip(real.lines())) {
        ensure!(expected == found, "docs/lint.md:{number} is\n  {expected}\nbut the real output is\n  {found}");
    }
    ensure!(text == real, "an output of docs/lint.md has another number of lines; UPDATE_DOCS=1 corrects it");
    Ok(())
}

#[test]
fn each_code_has_a_section_with_an_example() -> Result<()> {
    let text = fs::read_to_string(PAGE)?;
    for rule in ALL {
        let (code, title) = (rule.code, rule.title);
        let section = text.split(&format!("### {code}\n")).nth(1).unwrap_or_default();
        let section = section.split("\n##").next().unwrap_or_default();
        ensure!(section.to_lowercase().contains(&title.to_lowercase()), "the section {code} lacks {title:?}");
        ensure!(section.contains(&format!("({})", rule.level)), "the section {code} lacks its level");
        ensure!(section.contains(&format!("[{code}]")), "the section {code} has no example with this code");
    }
    Ok(())
}

/// The page, with the output of each command as the command prints it.
fn with_real_output(text: &str) -> Result<String> {
    let mut page = String::new();
    let mut directory = tempfile::tempdir()?;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        page += line;
        page += "\n";
        if line.starts_with('#') {
            directory = tempfile::tempdir()?;
        }
        if !matches!(line, "```yaml" | "```console") {
            continue;
        }
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if line == "```yaml" {
            save(directory.path(), &block)?;
            page += &(block.join("\n") + "\n```\n");
        } else {
            page += &(outputs(&directory, &block)? + "```\n");
        }
    }
    Ok(page)
}

/// Writes a block to the file that its first line names.
fn save(directory: &Path, block: &[&str]) -> Result<()> {
    if let [first, rest @ ..] = block
        && let Some(name) = first.strip_prefix("# ").filter(|name| Path::new(name).extension().is_some_and(|it| it == "yaml"))
    {
        // The comment keeps the line numbers of the page and of the file equal.
        fs::write(directory.join(name), format!("{first}\n{}\n", rest.join("\n")))?;
    }
    Ok(())
}

/// The commands of a block, each with its output.
fn outputs(directory: &TempDir, block: &[&str]) -> Result<String> {
    let mut text = String::new();
    for line in block.iter().filter(|line| line.starts_with("$ ")) {
        let outcome = shell(directory.path(), &line[2..])?;
        text.extend([line, "\n", &outcome.stdout, &outcome.stderr]);
    }
    Ok(text)
}
