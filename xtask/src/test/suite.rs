//! The test suites of the workspace, and what each of them needs.
//!
//! A suite is a file `tests/NAME.rs` or `tests/NAME/main.rs` of some member, as cargo finds them. Its module documentation may say
//! what it needs, in a line by itself: `//! Needs: nothing.`, `//! Needs: kernel.` or `//! Needs: kernel, control plane.` Without
//! that line, a suite of the end-to-end tests needs the kernel, and a control plane if it speaks of the harness's module of that
//! name.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::setup::Purpose;
use crate::workspace;

/// The member with the end-to-end tests.
const END_TO_END: &str = "tests/suites";
/// The other members, whose suites need nothing unless they say so.
const OTHERS: [&str; 3] = ["portmap-common", "portmap", "xtask"];

/// What is run together.
#[derive(Debug, PartialEq, Eq)]
pub struct Suite {
    /// As a person calls it.
    pub name: String,
    /// As `cargo test` is told.
    pub selection: Vec<String>,
    /// Without these it cannot run.
    pub needs: Vec<Purpose>,
    /// Set for it.
    pub environment: Vec<(&'static str, OsString)>,
}

/// All suites, those that need least first.
pub fn all() -> Result<Vec<Suite>> {
    let mut suites = vec![plain("unit", &["--lib", "--bins"]), plain("doc", &["--doc"])];
    for member in OTHERS {
        suites.extend(of_member(member, |_| Vec::new())?);
    }
    suites.extend(of_member(END_TO_END, presumed_needs)?);
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

fn of_member(member: &str, presume: fn(&str) -> Vec<Purpose>) -> Result<Vec<Suite>> {
    let Ok(entries) = fs::read_dir(workspace::root().join(member).join("tests")) else { return Ok(Vec::new()) };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| Some(of_file(path, &root_module(path)?, presume))).collect()
}

/// The file that cargo compiles for an entry of the directory `tests`.
fn root_module(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.join("main.rs")).filter(|file| file.is_file());
    }
    path.extension().is_some_and(|extension| extension == "rs").then(|| path.to_owned())
}

fn of_file(path: &Path, file: &Path, presume: fn(&str) -> Vec<Purpose>) -> Result<Suite> {
    let text = fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let needs = declared_needs(&text).unwrap_or_else(|| presume(&text));
    Ok(Suite { selection: vec!["--test".into(), name.clone()], name, needs, environment: Vec::new() })
}

/// What a suite says that it needs.
fn declared_needs(text: &str) -> Option<Vec<Purpose>> {
    let docs = text.lines().take_while(|line| line.starts_with("//!"));
    let said = docs.into_iter().find_map(|line| line.strip_prefix("//! Needs: "))?;
    let words = [("kernel", Purpose::Kernel), ("control plane", Purpose::ControlPlane)];
    Some(words.into_iter().filter(|(word, _)| said.contains(word)).map(|(_, purpose)| purpose).collect())
}

fn presumed_needs(text: &str) -> Vec<Purpose> {
    let control_plane = text.contains("control_plane").then_some(Purpose::ControlPlane);
    [Purpose::Kernel].into_iter().chain(control_plane).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read_from_the_module_docs() {
        assert_eq!(declared_needs("//! Golden cases.\n//!\n//! Needs: nothing.\n\nuse std::fs;\n"), Some(vec![]));
        assert_eq!(declared_needs("//! Needs: kernel.\n"), Some(vec![Purpose::Kernel]));
        assert_eq!(declared_needs("//! Needs: kernel, control plane.\n"), Some(vec![Purpose::Kernel, Purpose::ControlPlane]));
        assert_eq!(declared_needs("//! Connects.\n\n//! Needs: nothing.\n"), None);
        assert_eq!(declared_needs(""), None);
    }
}
