//! Adds Python to the ramdisk, with the parts of its standard library that the suites' clients import.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::RootDirectory;
use crate::{libraries, program};

/// Directories of the standard library that no client imports. They make up most of its size. `config` also stands for
/// `config-*`.
const LEFT_OUT: [&str; 12] = [
    "__pycache__",
    "config",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
];

/// Prints the path of the interpreter (`python3` may be a script that starts another program), and the path of its library.
const PRINT_PATHS: &str =
    "import os, sys, sysconfig; print(os.path.realpath(sys.executable)); print(sysconfig.get_path('stdlib'))";

pub(super) fn add(root: &RootDirectory) -> Result<()> {
    let paths = program::output(program::command("python3").args(["-c", PRINT_PATHS]))?;
    let mut lines = paths.lines().map(PathBuf::from);
    let (interpreter, library) = (lines.next(), lines.next());
    let (interpreter, library) = interpreter.zip(library).context("failed to parse the paths that python3 prints")?;
    root.add_program(&interpreter, &interpreter)?;
    root.link(&interpreter, Path::new("/usr/bin/python3"))?;
    root.copy_tree(&library, &library, &is_wanted)?;
    let extensions =
        program::output(program::command("find").arg(&library).args(["-name", "_*.so", "-path", "*lib-dynload*"]))?;
    for extension in extensions.lines().map(Path::new).filter(|path| is_wanted(path)) {
        libraries::of(extension)?.iter().try_for_each(|library| root.copy(library, library))?;
    }
    Ok(())
}

fn is_wanted(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !LEFT_OUT.iter().any(|left_out| name == *left_out || (*left_out == "config" && name.starts_with("config-")))
}
