//! Which files there are, and what they say.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{ErrorKind, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The path that means standard input.
pub const STDIN: &str = "-";

/// Extensions of the files that are read in a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Tells one content of a file from the next, without reading it: inode, size, time of change.
pub type Stamp = (u64, u64, i64, i64);

/// All files that the paths name. A path that is missing is an error at first; later it means that its files are gone.
pub fn list(paths: &[PathBuf], missing_is_gone: bool, warnings: &mut Vec<String>) -> Result<BTreeMap<PathBuf, Stamp>> {
    let mut files = BTreeMap::new();
    for path in paths.iter().filter(|path| *path != Path::new(STDIN)) {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if missing_is_gone && error.kind() == ErrorKind::NotFound => {
                warnings.push(format!("{} is gone, and its objects with it", path.display()));
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("failed to read {}", path.display())),
        };
        if !metadata.is_dir() {
            files.insert(path.clone(), stamp(&metadata));
            continue;
        }
        let before = files.len();
        for entry in fs::read_dir(path).with_context(|| format!("failed to list {}", path.display()))? {
            let file = entry.with_context(|| format!("failed to list {}", path.display()))?.path();
            // Through symbolic links, as a mounted ConfigMap has them; what vanishes meanwhile is gone.
            match fs::metadata(&file) {
                Ok(metadata) if metadata.is_file() && is_manifest(&file) => drop(files.insert(file, stamp(&metadata))),
                // Nor is it known to be gone, though.
                Err(error) if error.kind() == ErrorKind::OutOfMemory => {
                    return Err(error).with_context(|| format!("failed to read {}", file.display()));
                }
                Ok(_) | Err(_) => {}
            }
        }
        if files.len() == before {
            warnings.push(format!("{} has no file ending in .yaml, .yml or .json", path.display()));
        }
    }
    Ok(files)
}

/// A file's text.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}

/// Standard input's text, to its end.
pub fn read_stdin() -> Result<String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).context("failed to read standard input")?;
    Ok(text)
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    (metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec())
}

fn is_manifest(path: &Path) -> bool {
    let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    !is_hidden && extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}
