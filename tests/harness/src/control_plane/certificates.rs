//! Removes the API server's certificate. At its next start the API server makes a new one, with a new authority.

use std::fs;

use anyhow::{Context, Result};

use super::flags::Files;

/// Removes the certificate and its key. Keeps a copy of the first key, which continues to sign service-account tokens.
pub(super) fn forget(files: &Files<'_>) -> Result<()> {
    if !files.first_key().exists() {
        fs::copy(files.key(), files.first_key()).context("failed to keep the API server's key")?;
    }
    for path in [files.key(), files.certificate()] {
        fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))?;
    }
    Ok(())
}
