//! Lists the manifest files of the given paths, and reads their text.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{ErrorKind, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::kernel::exhaustion::is_exhausted;

/// The path that stands for standard input.
pub const STDIN: &str = "-";

/// Extensions of manifest files in a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Temporary errors, in addition to a shortage of file descriptors or memory.
const TRANSIENT: [Errno; 5] = [Errno::EIO, Errno::EINTR, Errno::EAGAIN, Errno::ESTALE, Errno::ETIMEDOUT];

/// The identity and version of a file's content, from its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Device and inode.
    file: (u64, u64),
    /// Size in bytes.
    size: u64,
    /// Change time (`ctime`) in seconds and nanoseconds.
    changed: (i64, i64),
}

impl Stamp {
    /// Whether both stamps are of the same inode, perhaps with another content.
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.file == other.file
    }
}

/// The manifest files of the paths, with their stamps: given files under any name, and files of given directories (see
/// [`is_manifest`]). Standard input is skipped.
///
/// # Errors
///
/// A path cannot be read. A missing path is a warning if `missing_is_gone`, else an error.
pub fn list(paths: &[PathBuf], missing_is_gone: bool, warnings: &mut Vec<String>) -> Result<BTreeMap<PathBuf, Stamp>> {
    let mut files = BTreeMap::new();
    for path in paths.iter().filter(|path| *path != Path::new(STDIN)) {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if missing_is_gone && is_missing(&error) => {
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
            if !is_manifest(&file) {
                continue;
            }
            // Follows symbolic links, which a mounted ConfigMap has. A file that is removed meanwhile is ignored.
            match fs::metadata(&file) {
                Ok(metadata) if metadata.is_file() => drop(files.insert(file, stamp(&metadata))),
                Ok(_) => {}
                Err(error) if is_missing(&error) && !file.is_symlink() => {}
                Err(error) if is_missing(&error) => {
                    warnings.push(format!("{} is a symbolic link without a target", file.display()));
                }
                Err(error) => return Err(error).with_context(|| format!("failed to read {}", file.display())),
            }
        }
        if files.len() == before {
            warnings.push(format!("{} has no file ending in .yaml, .yml or .json", path.display()));
        }
    }
    Ok(files)
}

/// The stamp of a file; `None` if it does not exist, or is a directory.
pub fn look(path: &Path) -> Result<Option<Stamp>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok((!metadata.is_dir()).then(|| stamp(&metadata))),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("failed to read {}", path.display())),
    }
}

/// The text of a file, which must be UTF-8.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}

/// The text of standard input until its end.
pub fn read_stdin() -> Result<String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).context("failed to read standard input")?;
    Ok(text)
}

/// Whether a file of a directory has the name of a manifest file: a known extension, and no leading dot.
pub fn is_manifest(path: &Path) -> bool {
    let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    !is_hidden && extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// Whether the error is temporary: a later read may succeed, even if the file does not change.
pub fn is_transient(error: &anyhow::Error) -> bool {
    let errors = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    is_exhausted(error) || errors.filter_map(io::Error::raw_os_error).any(|code| TRANSIENT.contains(&Errno::from_raw(code)))
}

/// Whether the error means that the path does not exist, or is a loop of symbolic links.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) || error.raw_os_error() == Some(Errno::ELOOP as i32)
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    Stamp { file: (metadata.dev(), metadata.ino()), size: metadata.size(), changed: (metadata.ctime(), metadata.ctime_nsec()) }
}
