//! The objects to lint: from files and standard input, or from a cluster.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use portmap::{
    lint::set::{Origin, Set},
    source::{
        kube::{
            ClusterConfig,
            list::{
                Lister,
                everything::{self, Listing},
            },
        },
        manifests::{STDIN, files},
    },
};

use crate::cli::{output, runtime};

/// The objects, and whether all of the input could be read.
pub struct Input {
    pub set: Set,
    pub is_complete: bool,
}

/// The name of standard input in findings.
const STDIN_NAME: &str = "<stdin>";

/// Reads all files of the paths. A file that cannot be read is an error message, and makes the input incomplete.
///
/// # Errors
///
/// A path is missing, a directory cannot be listed, or standard input cannot be read.
pub fn files(paths: &[PathBuf], recursive: bool, namespace: Option<&str>) -> Result<Input> {
    let mut set = Set::new(Origin::Files, namespace.unwrap_or("default"));
    let mut is_complete = true;
    let mut warnings = Vec::new();
    let found = if recursive { with_subdirectories(paths, &mut warnings)? } else { paths.to_owned() };
    for path in files::list(&found, false, &mut warnings)?.into_keys() {
        let name = path.display().to_string();
        match fs::read(&path).with_context(|| format!("failed to read {name}")) {
            Ok(bytes) => add(&mut set, &name, bytes),
            Err(error) => {
                output::error(&error);
                set.gaps.add(None);
                is_complete = false;
            }
        }
    }
    if paths.iter().any(|path| path == Path::new(STDIN)) {
        set.read(STDIN_NAME, &files::read_stdin()?);
    }
    for warning in warnings {
        output::warning(&warning);
    }
    Ok(Input { set, is_complete })
}

fn add(set: &mut Set, name: &str, bytes: Vec<u8>) {
    match String::from_utf8(bytes) {
        Ok(text) => set.read(name, &text),
        Err(_) => set.add_unreadable(name, "the file is not UTF-8"),
    }
}

/// The files of the paths, and the manifests in directories and their subdirectories. Subdirectories with a leading dot are
/// left out.
fn with_subdirectories(paths: &[PathBuf], warnings: &mut Vec<String>) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = all.len();
            add_directory(path, &mut all)?;
            if all.len() == before {
                warnings.push(format!("{} has no file ending in .yaml, .yml or .json", path.display()));
            }
        } else {
            all.push(path.clone());
        }
    }
    Ok(all)
}

/// Adds the manifests of a directory and of its subdirectories. Links to directories are not followed: they may form a loop.
fn add_directory(directory: &Path, all: &mut Vec<PathBuf>) -> Result<()> {
    let failed = || format!("failed to list {}", directory.display());
    for entry in fs::read_dir(directory).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let path = entry.path();
        if entry.file_type().with_context(failed)?.is_dir() {
            if !entry.file_name().to_string_lossy().starts_with('.') {
                add_directory(&path, all)?;
            }
        } else if files::is_manifest(&path) && !path.is_dir() {
            all.push(path);
        }
    }
    Ok(())
}

/// Lists the objects of a cluster, or of one of its namespaces. Kinds that are missing or forbidden are a warning.
///
/// # Errors
///
/// There is no configuration of a cluster, or the API server does not answer.
pub fn cluster(config: &ClusterConfig, namespace: Option<&str>) -> Result<Input> {
    let Listing { objects, forbidden, unserved } = runtime()?.block_on(async {
        let lister = Lister::open(config).await?;
        everything::list(&lister, namespace).await
    })?;
    let mut set = Set::new(Origin::Cluster, "default");
    for object in objects {
        set.add(object);
    }
    for kind in &forbidden {
        set.gaps.add(Some(kind));
    }
    if !forbidden.is_empty() {
        output::warning(&format!("you may not list {}: conclusions that depend on them are left out", forbidden.join(", ")));
    }
    if !unserved.is_empty() {
        output::warning(&format!("the cluster does not have {}: they are skipped", unserved.join(", ")));
    }
    Ok(Input { set, is_complete: true })
}
