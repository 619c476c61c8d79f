//! Another certificate for the API server: it makes one, and an authority for it, whenever there is none.

use std::fs;

use anyhow::{Context, Result};

use super::flags::Files;

/// Takes the certificate away, and keeps the first one's key for what it signs besides.
pub(super) fn forget(files: &Files<'_>) -> Result<()> {
    if !files.first_key().exists() {
        fs::copy(files.key(), files.first_key()).context("failed to keep the API server's key")?;
    }
    for path in [files.key(), files.certificate()] {
        fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))?;
    }
    Ok(())
}
