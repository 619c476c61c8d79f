//! `cargo xtask dist` and `cargo xtask image`: what users of portmap download.
//!
//! [`binary`] builds a statically linked program for an [`architecture`]. [`dist`] packs archives of it, and [`image`] a
//! container image. [`bill`] lists the dependencies.

pub mod architecture;
mod bill;
pub mod binary;
pub mod dist;
pub mod image;

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{files, program, workspace};

/// Environment variable with the time of all files, in seconds since 1970: <https://reproducible-builds.org/docs/source-date-epoch/>.
const TIME: &str = "SOURCE_DATE_EPOCH";

/// The version of portmap.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The directory of the archives and images. Creates it.
fn directory() -> Result<PathBuf> {
    let directory = workspace::target_dir()?.join("dist");
    files::create(&directory)?;
    Ok(directory)
}

/// The time of all files in archives and images, in seconds since 1970: that of the last commit, unless the environment gives
/// another.
pub fn time() -> Result<u64> {
    let text = match env::var(TIME) {
        Ok(text) => text,
        Err(_) => program::output(program::command("git").args(["log", "-1", "--format=%ct"]).current_dir(workspace::root()))
            .with_context(|| format!("failed to get the time of the last commit; give one in {TIME}"))?,
    };
    text.trim().parse().with_context(|| format!("the time `{}` is not a number of seconds", text.trim()))
}

/// A size in bytes as text.
fn size(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}
