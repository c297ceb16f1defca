//! How far the journal was reported to each recipient: a small file for each, in the journal's
//! folder.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A position in the journal: everything before it was reported, and everything up to `until` is
/// being reported. A batch that was started is repeated unchanged, so that the recipient recognizes
/// it if it arrived before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JournalPosition {
    pub(super) file: u64,
    pub(super) offset: u64,
    #[serde(default)]
    pub(super) until: Option<u64>,
}

pub(super) fn position_of(kept: &Path) -> Result<JournalPosition> {
    match std::fs::read(kept) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
            format!("{} does not contain a valid position of reporting", kept.display())
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(JournalPosition::default())
        }
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", kept.display())),
    }
}

/// The positions of all recipients of this journal.
fn positions(folder: &Path) -> Vec<Result<JournalPosition>> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let kept = entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix("told-").is_some_and(|rest| rest.strip_suffix(".json").is_some())
    });
    kept.map(|path| position_of(&path)).collect()
}

/// Files below this number were reported to all recipients.
pub(super) fn reported_through(folder: &Path) -> u64 {
    let positions = positions(folder).into_iter();
    positions.map(|position| position.map_or(0, |position| position.file)).min().unwrap_or(u64::MAX)
}

/// The highest number of a file that was reported to any recipient.
pub(super) fn highest_reported(folder: &Path) -> u64 {
    let positions = positions(folder).into_iter().filter_map(Result::ok);
    positions.map(|position| position.file).max().unwrap_or(0)
}
