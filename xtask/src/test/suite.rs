//! Finds the test suites of the workspace, and the requirements of each.
//!
//! A suite is a file `tests/NAME.rs` or `tests/NAME/main.rs` of a workspace member, as for cargo. A line of its module doc may
//! declare its requirements: `//! Needs: nothing.`, or some of `//! Needs: root and BPF, control plane, browser, promtool.`
//! Without that line, an end-to-end suite needs the kernel, and also a control plane if its text contains `control_plane`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::setup::Purpose;
use crate::workspace;

/// The workspace member with the end-to-end tests.
const END_TO_END: &str = "tests/suites";
/// The other members with suites, which need nothing unless they declare it.
const OTHERS: [&str; 3] = ["portmap-common", "portmap", "xtask"];

/// Tests that one call of `cargo test` runs.
#[derive(Debug, PartialEq, Eq)]
pub struct Suite {
    /// The suite's name on the command line.
    pub name: String,
    /// Arguments of `cargo test` that select the suite.
    pub selection: Vec<String>,
    /// The requirements without which the suite cannot run.
    pub needs: Vec<Purpose>,
    /// Additional environment variables.
    pub environment: Vec<(&'static str, OsString)>,
}

/// All suites, those with the fewest requirements first.
pub fn all() -> Result<Vec<Suite>> {
    let mut suites = vec![plain("unit", &["--lib", "--bins"]), plain("doc", &["--doc"])];
    for member in OTHERS {
        suites.extend(of_member(member, |_| Vec::new())?);
    }
    suites.extend(of_member(END_TO_END, default_needs)?);
    suites.sort_by_key(|suite| suite.needs.len());
    Ok(suites)
}

fn plain(name: &str, selection: &[&str]) -> Suite {
    Suite {
        name: name.into(),
        selection: selection.iter().map(ToString::to_string).collect(),
        needs: Vec::new(),
        environment: Vec::new(),
    }
}

fn of_member(member: &str, default_needs: fn(&str) -> Vec<Purpose>) -> Result<Vec<Suite>> {
    let Ok(entries) = fs::read_dir(workspace::root().join(member).join("tests")) else { return Ok(Vec::new()) };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| Some(of_file(path, &root_module(path)?, default_needs))).collect()
}

/// The file that cargo compiles for an entry of the directory `tests`; `None` if cargo ignores the entry.
fn root_module(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.join("main.rs")).filter(|file| file.is_file());
    }
    path.extension().is_some_and(|extension| extension == "rs").then(|| path.to_owned())
}

fn of_file(path: &Path, file: &Path, default_needs: fn(&str) -> Vec<Purpose>) -> Result<Suite> {
    let text = fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let needs = declared_needs(&text).unwrap_or_else(|| default_needs(&text));
    Ok(Suite { selection: vec!["--test".into(), name.clone()], name, needs, environment: Vec::new() })
}

/// The requirements in the line `//! Needs: ` of a suite's module doc; `None` without that line.
fn declared_needs(text: &str) -> Option<Vec<Purpose>> {
    let docs = text.lines().take_while(|line| line.starts_with("//!"));
    let declared = docs.into_iter().find_map(|line| line.strip_prefix("//! Needs: "))?;
    let names = [
        ("root and BPF", Purpose::Kernel),
        ("control plane", Purpose::ControlPlane),
        ("browser", Purpose::Browser),
        ("promtool", Purpose::Promtool),
    ];
    Some(names.into_iter().filter(|(name, _)| declared.contains(name)).map(|(_, purpose)| purpose).collect())
}

fn default_needs(text: &str) -> Vec<Purpose> {
    let control_plane = text.contains("control_plane").then_some(Purpose::ControlPlane);
    [Purpose::Kernel].into_iter().chain(control_plane).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read_from_the_module_docs() {
        assert_eq!(declared_needs("//! Golden cases.\n//!\n//! Needs: nothing.\n\nuse std::fs;\n"), Some(vec![]));
        assert_eq!(declared_needs("//! Needs: root and BPF.\n"), Some(vec![Purpose::Kernel]));
        assert_eq!(
            declared_needs("//! Needs: root and BPF, control plane.\n"),
            Some(vec![Purpose::Kernel, Purpose::ControlPlane])
        );
        assert_eq!(
            declared_needs("//! Needs: control plane, promtool.\n"),
            Some(vec![Purpose::ControlPlane, Purpose::Promtool])
        );
        assert_eq!(declared_needs("//! Connects.\n\n//! Needs: nothing.\n"), None);
        assert_eq!(declared_needs(""), None);
    }
}
