//! The examples of `docs/lint.md` and `docs/learn.md` show the real output, and `docs/lint.md` has every code.
//!
//! A block of YAML whose first line is `# NAME.yaml` is a file. The files of a section are in the directory in which the
//! commands of the section run, beside a link to `docs`. `UPDATE_DOCS=1` writes the output of each command to the pages.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use portmap::lint::catalog::ALL;
use portmap_suites::command::is_update;
use tempfile::TempDir;

use crate::harness::shell;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");

/// The pages whose examples are run.
const PAGES: [&str; 2] = ["lint.md", "learn.md"];

fn page(name: &str) -> PathBuf {
    Path::new(DOCS).join(name)
}

#[test]
fn the_examples_show_the_real_output() -> Result<()> {
    PAGES.into_iter().try_for_each(compare)
}

fn compare(name: &str) -> Result<()> {
    let text = fs::read_to_string(page(name))?;
    let real = with_real_output(&text)?;
    if is_update("UPDATE_DOCS") {
        return Ok(fs::write(page(name), &real)?);
    }
    for (number, (expected, found)) in (1..).zip(text.lines().zip(real.lines())) {
        ensure!(expected == found, "docs/{name}:{number} is\n  {expected}\nbut the real output is\n  {found}");
    }
    ensure!(text == real, "an output of docs/{name} has another number of lines; UPDATE_DOCS=1 corrects it");
    Ok(())
}

#[test]
fn each_code_has_a_section_with_an_example() -> Result<()> {
    let text = fs::read_to_string(page("lint.md"))?;
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
    let mut directory = new_directory()?;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        page += line;
        page += "\n";
        if line.starts_with('#') {
            directory = new_directory()?;
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

/// A directory with a link to `docs`.
fn new_directory() -> Result<TempDir> {
    let directory = tempfile::tempdir()?;
    symlink(DOCS, directory.path().join("docs"))?;
    Ok(directory)
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
