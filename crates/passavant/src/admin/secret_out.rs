//! Where a secret goes that is shown once.

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
    /// Before anything is made: the file is there then, empty and its owner's alone, and one that was there stays.
    pub(super) fn new(option: &str, file: Option<PathBuf>) -> Result<Self> {
        if let Some(file) = &file {
            system::write_private(file, b"", true).with_context(|| option.to_owned())?;
        }
        Ok(Self { file, kept: false })
    }

    /// Writes the secret of an answer there, where there is one, and takes it out of the answer.
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
    /// Nothing was made: no file is left for it.
    fn drop(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|_| !self.kept) {
            let _ = std::fs::remove_file(file);
        }
    }
}
