//! `portmap man`: the manual pages.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::say;
use portmap_suites::command::{finish, portmap};

/// The subcommands that `portmap --help` lists.
fn subcommands() -> Result<Vec<String>> {
    let help = portmap(&["--help"])?.expect(0)?.stdout;
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // The text of a subcommand may continue on a line with a wider indent.
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| *name != "help").map(str::to_owned).collect())
}

#[test]
fn each_subcommand_has_a_page() -> Result<()> {
    let directory = tempfile::tempdir()?;
    portmap(&["man", "--dir", &directory.path().to_string_lossy()])?.expect(0)?;
    let files: Vec<_> = fs::read_dir(directory.path())?.collect::<Result<_, _>>()?;
    let found: BTreeSet<String> = files.iter().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    let subcommands = subcommands()?;
    ensure!(subcommands.len() > 10, "{subcommands:?}");
    let pages = subcommands.iter().map(|name| format!("portmap-{name}.1"));
    assert_eq!(found, pages.chain(["portmap.1".to_owned()]).collect());
    for name in &subcommands {
        let printed = portmap(&["man", name])?.expect(0)?.stdout;
        assert_eq!(printed, fs::read_to_string(directory.path().join(format!("portmap-{name}.1")))?);
        ensure!(printed.contains(&format!("portmap\\-{name} \\- ")) && printed.contains("\\-\\-help"), "{printed}");
    }
    let overview = portmap(&["man"])?.expect(0)?.stdout;
    let version = concat!("portmap ", env!("CARGO_PKG_VERSION"));
    ensure!(overview.contains(version) && overview.contains("portmap\\-explain(1)"), "{overview}");
    Ok(())
}

/// groff reports unknown requests and characters, and lines that it cannot break.
#[test]
fn pages_are_formatted_without_warnings() -> Result<()> {
    if finish(Command::new("groff").arg("--version")).is_err() {
        say::skipped("pages_are_formatted_without_warnings", "groff is not installed");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    portmap(&["man", "--dir", &directory.path().to_string_lossy()])?.expect(0)?;
    for file in fs::read_dir(directory.path())? {
        let page = file?.path();
        let outcome = finish(Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&page))?.expect(0)?;
        ensure!(outcome.stderr.is_empty(), "{}: {}", page.display(), outcome.stderr);
    }
    Ok(())
}

#[test]
fn a_missing_directory_is_named() -> Result<()> {
    let directory = tempfile::tempdir()?.path().join("missing");
    let directory = directory.to_str().context("not UTF-8")?;
    portmap(&["man", "--dir", directory])?.expect_error(&["failed to write", directory, "No such file"])
}
