//! Finds the shared libraries of a program with `ldd`.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::program;

/// The paths of the program's libraries and of its dynamic loader. Empty if `ldd` fails or finds none, as for scripts and
/// statically linked programs.
pub fn of(path: &Path) -> Result<Vec<PathBuf>> {
    let Ok(output) = program::output(program::command("ldd").arg(path)) else { return Ok(Vec::new()) };
    output.lines().filter_map(parse).map(|library| with_real_directory(&library)).collect()
}

/// Parses `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn parse(line: &str) -> Option<PathBuf> {
    let found = line.split_once("=>").map_or(line, |(_, found)| found).trim();
    let (path, _) = found.split_once(" (")?;
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// The library's path with symbolic links resolved in its directory. The file name stays, because the loader searches for it.
fn with_real_directory(library: &Path) -> Result<PathBuf> {
    let directory = library.parent().unwrap_or(library).canonicalize()?;
    Ok(directory.join(library.file_name().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_ldd_is_parsed() {
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
