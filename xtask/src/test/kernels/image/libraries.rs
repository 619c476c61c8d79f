//! The shared libraries of a program.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::program;

/// The libraries that the loader finds for it, itself included; none if it is a script, or linked with none.
pub fn of(path: &Path) -> Result<Vec<PathBuf>> {
    let Ok(said) = program::output(program::command("ldd").arg(path)) else { return Ok(Vec::new()) };
    said.lines().filter_map(parse).map(|library| at_home(&library)).collect()
}

/// Reads `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn parse(line: &str) -> Option<PathBuf> {
    let found = line.split_once("=>").map_or(line, |(_, found)| found).trim();
    let (path, _) = found.split_once(" (")?;
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// The directory without links; the file's own name is the one that the loader looks for.
fn at_home(library: &Path) -> Result<PathBuf> {
    let directory = library.parent().unwrap_or(library).canonicalize()?;
    Ok(directory.join(library.file_name().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_answers_are_read() {
        let paths = [
            ("\tlinux-vdso.so.1 (0x00007ffd5b5f2000)", None),
            ("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)", Some("/lib/x86_64-linux-gnu/libc.so.6")),
            ("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)", Some("/lib64/ld-linux-x86-64.so.2")),
            ("\tstatically linked", None),
            ("\tlibgone.so.1 => not found", None),
        ];
        for (line, path) in paths {
            assert_eq!(parse(line), path.map(PathBuf::from), "{line}");
        }
    }
}
