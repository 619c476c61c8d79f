//! Finds the programs of this workspace, which Cargo builds into the directory of the running program.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Finds a program of this workspace: the path in `<NAME>_BIN`, for example `PORTMAP_POD_BIN`. Without that variable, a file
/// beside the running program or one directory above, because Cargo builds tests in `deps/`.
pub fn find(name: &str) -> Result<PathBuf> {
    let variable = format!("{}_BIN", name.replace('-', "_").to_uppercase());
    if let Some(path) = env::var_os(&variable) {
        let path = PathBuf::from(path);
        return path.is_file().then_some(path).with_context(|| format!("the path in {variable} is not a file"));
    }
    let this = env::current_exe().context("failed to get the path of the running program")?;
    let found = this.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        let this = this.display();
        format!("found no program {name} near {this}: run `cargo build --bin {name}` with the same profile, or set {variable}")
    })
}
