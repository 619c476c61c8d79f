//! Builds agents of earlier commits from this repository's history, for tests of upgrades and downgrades.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::release::architecture::Architecture;
use crate::release::binary;
use crate::screen::Screen;
use crate::{program, workspace};

/// Environment variable with the paths of the earlier agents for the suites, separated as in `PATH`.
pub const VARIABLE: &str = "PORTMAP_EARLIER_AGENTS";

/// The commits of the earlier agents. Their maps have the layouts `ABI_VERSION` 2, 3 and 4.
const COMMITS: [&str; 3] = [
    "f8d3acde50665e0ee35ab8035b563ac986116ac1",
    "63e5d2abe6b97633e3d8a961d23e85eda9c4d4dd",
    "bec16a11219b708a928f1b356dde9e7b25821aa5",
];

/// The commit of the earlier, statically linked agent: the first that had such a program.
const STATIC: &str = "908e4ab";

/// Builds the missing agents, and returns the value of [`VARIABLE`]. Fails if an agent is missing and the clone is shallow, so
/// that it lacks the history.
pub fn build() -> Result<OsString> {
    let agents = COMMITS.into_iter().map(agent).collect::<Result<Vec<_>>>()?;
    env::join_paths(agents).context("the target directory's path has a colon, so it cannot be in a list of paths")
}

/// Builds an earlier, statically linked agent for this machine, if it is missing.
pub fn static_agent() -> Result<PathBuf> {
    let architecture = Architecture::own()?;
    ensure_built(&format!("portmap-static-{STATIC}"), STATIC, |source, target| {
        let mut cargo = binary::command(architecture, source)?;
        program::run(cargo.env("CARGO_TARGET_DIR", target))?;
        Ok(binary::path_in(target, architecture))
    })
}

fn agent(commit: &str) -> Result<PathBuf> {
    ensure_built(&format!("portmap-{commit}"), commit, |source, target| {
        let mut cargo = workspace::cargo();
        cargo.current_dir(source).env("CARGO_TARGET_DIR", target);
        program::run(cargo.args(["build", "--release", "--package", "portmap", "--bins"]))?;
        Ok(target.join("release/portmap"))
    })
}

/// The file `name` with the agent of a commit. If it is missing, unpacks the commit, and calls `build` with the directories of
/// the sources and for cargo's target. `build` returns the path of the program.
fn ensure_built(name: &str, commit: &str, build: impl Fn(&Path, &Path) -> Result<PathBuf>) -> Result<PathBuf> {
    let directory = workspace::target_dir()?.join("earlier");
    let agent = directory.join(name);
    if agent.exists() {
        return Ok(agent);
    }
    let git = || {
        let mut git = program::command("git");
        git.arg("-C").arg(workspace::root());
        git
    };
    let title = program::output(git().args(["log", "-1", "--format=%h %s", commit]))
        .with_context(|| format!("failed to find the commit {commit} of an earlier agent; a shallow clone lacks it"))?;
    Screen::Stderr.line(&format!("building the agent of commit {}; this takes minutes, but only once", title.trim()));
    let source = directory.join("source");
    replace_directory(&source)?;
    let archive = directory.join("source.tar");
    program::run(git().arg("archive").arg("--output").arg(&archive).arg(commit))?;
    program::run(program::command("tar").arg("-xf").arg(&archive).arg("-C").arg(&source))?;
    let program = build(&source, &directory.join("target"))?;
    // A final rename ensures that the agent is complete.
    let partial = agent.with_extension("partial");
    fs::copy(program, &partial).context("failed to copy an earlier agent")?;
    fs::rename(&partial, &agent).context("failed to rename an earlier agent")?;
    Ok(agent)
}

fn replace_directory(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("failed to remove {}", path.display()))?;
    }
    fs::create_dir_all(path).with_context(|| format!("failed to create {}", path.display()))
}
