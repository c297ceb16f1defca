//! The file for a secret that is shown once.

use anyhow::{Context, Result};
use passavant_host as system;
use passavant_proto::secret::Secret;
use serde_json::Value;
use std::path::PathBuf;

/// A new file for a secret that is shown once.
pub(super) struct SecretOut {
    pub(super) file: Option<PathBuf>,
    kept: bool,
}

impl SecretOut {
    /// Call it before the act: it creates the file, empty and private to its owner, and fails if
    /// the file exists.
    pub(super) fn new(option: &str, file: Option<PathBuf>) -> Result<Self> {
        if let Some(file) = &file {
            system::write_private(file, b"", true).with_context(|| option.to_owned())?;
        }
        Ok(Self { file, kept: false })
    }

    /// Writes the secret from a response to the file, if there is one, and removes it from the
    /// response.
    pub(super) fn keep(&mut self, mut answer: Value, member: &str) -> Result<Value> {
        if let (Some(file), Some(secret)) = (&self.file, answer.get(member)) {
            let secret = Secret::new(secret.as_str().unwrap_or_default());
            system::write_private(file, secret.expose().as_bytes(), false)?;
            self.kept = true;
            answer[member] = format!("(in {})", file.display()).into();
        }
        Ok(answer)
    }
}

impl Drop for SecretOut {
    /// Nothing was created, so the file is removed.
    fn drop(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|_| !self.kept) {
            let _ = std::fs::remove_file(file);
        }
    }
}
