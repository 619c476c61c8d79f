//! The dependencies of portmap: their licences, and the software bill of materials (SBOM).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::architecture::Architecture;
use super::binary;
use crate::subcommand::Subcommand;
use crate::{audit, files, program, workspace};

const CYCLONE_DX: Subcommand = Subcommand { package: "cargo-cyclonedx", version: "0.5.9", features: &[] };

/// The name of the list, without its ending.
const LIST: &str = "portmap.cdx";

/// Writes `THIRD-PARTY-LICENSES` and `portmap.cdx.json` into a directory. Builds the tools for it, which takes some minutes the
/// first time.
pub fn write(directory: &Path) -> Result<()> {
    audit::write_licenses(&directory.join("THIRD-PARTY-LICENSES"))?;
    // The tool writes a list beside each member's manifest. Without the old times, cargo would build the members anew.
    let times = times()?;
    let mut list = CYCLONE_DX.command()?;
    list.args(["cyclonedx", "--format", "json", "--override-filename", LIST, "--no-build-deps"]);
    list.args(["--target", Architecture::ALL[0].target(), "--manifest-path", "portmap/Cargo.toml"]);
    program::run(&mut list)?;
    let name = format!("{LIST}.json");
    let written = workspace::root().join("portmap").join(&name);
    let text = fs::read_to_string(&written).with_context(|| format!("failed to read {}", written.display()));
    remove_lists(&name)?;
    for (member, time) in times {
        File::open(&member)
            .and_then(|it| it.set_modified(time))
            .with_context(|| format!("failed to touch {}", member.display()))?;
    }
    let root = workspace::root().display().to_string();
    files::write(&directory.join(&name), &without_time(&text?.replace(&root, binary::ROOT))?)
}

/// The directories of all members of the workspace, with the times of their last change.
fn times() -> Result<Vec<(PathBuf, SystemTime)>> {
    let time = |directory: PathBuf| {
        let time = fs::metadata(&directory).and_then(|it| it.modified());
        let time = time.with_context(|| format!("failed to read {}", directory.display()))?;
        Ok((directory, time))
    };
    workspace::members()?.iter().filter_map(|member| member.manifest_path.parent()).map(|it| time(it.into())).collect()
}

/// Removes the lists that the tool has written beside the manifests of all members of the workspace.
fn remove_lists(name: &str) -> Result<()> {
    for member in workspace::members()? {
        let list = member.manifest_path.with_file_name(name);
        if list.is_file() {
            fs::remove_file(&list).with_context(|| format!("failed to remove {}", list.display()))?;
        }
    }
    Ok(())
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
