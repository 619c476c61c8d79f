//! The dependencies of portmap: their licences, and the software bill of materials (SBOM).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::architecture::Architecture;
use crate::screen::{Mark, Screen};
use crate::{files, program, workspace};

/// A cargo command that the release needs, and its version.
type Tool = (&'static str, &'static str);

/// Collects the texts of licences.
const ABOUT: Tool = ("cargo-about", "0.9.3");
/// Lists dependencies in the format CycloneDX.
const CYCLONE_DX: Tool = ("cargo-cyclonedx", "0.5.9");

/// Writes `THIRD-PARTY-LICENSES.html` and `portmap.cdx.json` into a directory. Installs the tools for it, which takes some
/// minutes the first time.
pub fn write(directory: &Path) -> Result<()> {
    let manifest = workspace::root().join("portmap/Cargo.toml");
    let mut about = program::command(&installed(ABOUT)?.to_string_lossy());
    about.current_dir(workspace::root()).args(["about", "generate", "--locked", "--fail", "--manifest-path"]).arg(&manifest);
    program::run(about.arg("--output-file").arg(directory.join("THIRD-PARTY-LICENSES.html")).arg("about.hbs"))?;

    let mut list = program::command(&installed(CYCLONE_DX)?.to_string_lossy());
    list.current_dir(workspace::root()).args(["cyclonedx", "--format", "json", "--override-filename", "portmap.cdx"]);
    let target = Architecture::ALL[0].target();
    program::run(list.args(["--target", target, "--no-build-deps", "--manifest-path"]).arg(&manifest))?;
    let written = workspace::root().join("portmap/portmap.cdx.json");
    let text = std::fs::read_to_string(&written).with_context(|| format!("failed to read {}", written.display()))?;
    std::fs::remove_file(&written).with_context(|| format!("failed to remove {}", written.display()))?;
    files::write(&directory.join("portmap.cdx.json"), &without_time(&text)?)
}

/// The list without the time and the random number of its making, so that equal dependencies give equal bytes.
fn without_time(text: &str) -> Result<String> {
    let mut list: Value = serde_json::from_str(text).context("failed to parse the list of dependencies")?;
    if let Some(fields) = list.as_object_mut() {
        fields.remove("serialNumber");
    }
    if let Some(metadata) = list.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.remove("timestamp");
    }
    Ok(serde_json::to_string_pretty(&list)?)
}

/// The path of a tool in the directory for tools. Builds it if it is missing.
fn installed((name, version): Tool) -> Result<PathBuf> {
    let root = workspace::tools_dir()?.join(format!("{name}-{version}"));
    let path = root.join("bin").join(name);
    if !path.is_file() {
        Screen::Stderr.marked(Mark::Doing, &format!("building {name} {version}"), "it lists the dependencies; takes some minutes");
        let mut cargo = workspace::cargo();
        cargo.args(["install", name, "--version", version, "--locked", "--root"]).arg(&root);
        if name == ABOUT.0 {
            cargo.args(["--features", "cli"]);
        }
        program::run(&mut cargo)?;
    }
    Ok(path)
}
