//! Records from which input a file was made, so that it is made again only if the input changes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The record of one made file or directory. It is removed before the making and written after it, so that an interrupted
/// making is repeated.
#[derive(Debug)]
pub struct Stamp {
    path: PathBuf,
    input: String,
}

impl Stamp {
    /// The stamp of `made`, in a file beside it. `input` is a text that identifies the input.
    pub fn new(made: &Path, input: String) -> Self {
        let name = made.file_name().unwrap_or_default().to_string_lossy();
        Self { path: made.with_file_name(format!("{name}.made-from")), input }
    }

    /// Calls `make` if the recorded input differs.
    pub fn ensure(&self, make: impl FnOnce() -> Result<()>) -> Result<()> {
        if fs::read_to_string(&self.path).is_ok_and(|recorded| recorded == self.input) {
            return Ok(());
        }
        fs::remove_file(&self.path).ok();
        make()?;
        fs::write(&self.path, &self.input).with_context(|| format!("failed to write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::env;
    use std::process;

    use anyhow::bail;

    use super::*;

    #[test]
    fn a_file_is_made_again_for_another_input_and_after_a_failure() -> Result<()> {
        let file = env::temp_dir().join(format!("portmap-stamp-{}", process::id()));
        let count = Cell::new(0);
        let make = || {
            count.set(count.get() + 1);
            Ok(())
        };
        let stamp = |input: &str| Stamp::new(&file, input.to_owned());
        stamp("one").ensure(make)?;
        stamp("one").ensure(make)?;
        assert_eq!(count.get(), 1);
        assert!(stamp("two").ensure(|| bail!("no luck")).is_err());
        stamp("one").ensure(make)?;
        assert_eq!(count.get(), 2);
        fs::remove_file(stamp("").path)?;
        Ok(())
    }
}
