//! From the journal to where IT reads: batches of lines, each taken once, in order. The place in the journal
//! is kept beside it, so that nothing is told twice or left out over a restart.

use super::journal;
use crate::system;
use anyhow::{Context, Result, bail};
use carnet_client::{Outbound, Reach, discover_authorization_server};
use carnet_proto::{identifier::Issuer, secret::Secret};
use carnet_server::{idp::Idp, ras::Ras};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Bytes of one batch: a form with them stays below what an authorization server reads.
const BATCH: usize = 16 * 1024;
/// How often the journal is looked at when there was nothing.
const EVERY: Duration = Duration::from_millis(500);
/// How long is waited after a report was not taken.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Who takes reports.
#[derive(Clone)]
pub(crate) enum Desk {
    /// An IdP of this process.
    Idp(Idp),
    /// A RAS of this process.
    Ras(Ras),
    /// The company's IdP, elsewhere.
    Remote { issuer: Issuer, client_id: String, secret: Secret, outbound: Outbound },
}

impl Desk {
    /// A name for the file that keeps the place.
    fn name(&self) -> String {
        let issuer = match self {
            Self::Idp(idp) => idp.issuer(),
            Self::Ras(ras) => ras.issuer(),
            Self::Remote { issuer, .. } => issuer,
        };
        carnet_proto::secret::sha256(issuer.as_str().as_bytes())
    }

    async fn take(&self, gateway: &str, batch: &str, lines: &str) -> Result<()> {
        match self {
            Self::Idp(idp) => idp.take_calls(gateway, batch, lines).await.map(|_| ())?,
            Self::Ras(ras) => ras.take_calls(gateway, batch, lines).await.map(|_| ())?,
            Self::Remote { issuer, client_id, secret, outbound } => {
                let metadata = discover_authorization_server(outbound, issuer).await?;
                let endpoint = metadata.carnet_gateway_records_endpoint.with_context(|| {
                    format!("{issuer} is no Carnet identity provider: it takes no reports of calls")
                })?;
                let form = [("batch", batch), ("lines", lines)];
                let basic = Some((client_id.as_str(), secret.expose()));
                let reach = Reach::of_trusted_url(issuer.as_str());
                let answer = outbound.post_form(&endpoint, reach, &form, basic).await?;
                if answer.status != 200 {
                    let text = String::from_utf8_lossy(&answer.body);
                    bail!("{issuer} answered {}: {text}", answer.status);
                }
            }
        }
        Ok(())
    }
}

/// The place in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    file: u64,
    offset: u64,
    /// End of the batch that was being told: it is told again as it was.
    #[serde(default)]
    until: Option<u64>,
}

/// Tells `desk` of everything in the journal, and goes on until `stop`.
pub(crate) async fn run(folder: PathBuf, gateway: String, desk: Desk, stop: CancellationToken) {
    let kept = folder.join(format!("told-{}.json", &desk.name()[..12]));
    let mut failing = false;
    loop {
        let done = step(&folder, &kept, &gateway, &desk).await;
        let wait = match done {
            Ok(true) => Duration::ZERO,
            Ok(false) => EVERY,
            Err(error) => {
                if !failing {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "a report of calls was not taken; it is tried again"
                    );
                }
                AFTER_FAILURE
            }
        };
        failing = wait == AFTER_FAILURE;
        if stop.is_cancelled() && !(wait.is_zero()) {
            return;
        }
        tokio::select! {
            () = stop.cancelled(), if !stop.is_cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Tells of one batch; `false` where there was none.
async fn step(folder: &Path, kept: &Path, gateway: &str, desk: &Desk) -> Result<bool> {
    let mut place = place(kept)?;
    let numbers = journal::numbers(folder)?;
    let Some(first) = numbers.iter().copied().find(|number| *number >= place.file) else {
        return Ok(false);
    };
    if first != place.file {
        place = Place { file: first, ..Place::default() };
    }
    let path = journal::file_of(folder, place.file);
    let lines = read(&path, place.offset, place.until)?;
    if lines.is_empty() {
        if numbers.last().is_some_and(|last| *last > place.file) {
            keep(kept, Place { file: place.file + 1, ..Place::default() })?;
            return Ok(true);
        }
        return Ok(false);
    }
    let until = place.offset + lines.len() as u64;
    if place.until.is_none() {
        place.until = Some(until);
        keep(kept, place)?;
    }
    let batch = format!("{} {}", place.file, place.offset);
    let text = String::from_utf8_lossy(&lines);
    desk.take(gateway, &batch, &text).await?;
    keep(kept, Place { file: place.file, offset: until, until: None })?;
    Ok(true)
}

fn place(kept: &Path) -> Result<Place> {
    match std::fs::read(kept) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} does not say where reporting stands", kept.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Place::default()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", kept.display())),
    }
}

fn keep(kept: &Path, place: Place) -> Result<()> {
    system::write_private(kept, &serde_json::to_vec(&place)?, false)
}

/// Whole lines from `offset`, up to `until` or as many as make a batch.
fn read(path: &Path, offset: u64, until: Option<u64>) -> Result<Vec<u8>> {
    let mut file =
        File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    file.seek(SeekFrom::Start(offset))?;
    let most = until.map_or(BATCH as u64, |until| until.saturating_sub(offset));
    let mut bytes = Vec::new();
    file.by_ref().take(most).read_to_end(&mut bytes)?;
    if until.is_some() {
        return Ok(bytes);
    }
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole == 0 && bytes.len() == BATCH {
        // One line that is longer than a batch goes by itself.
        let mut byte = [0];
        while file.read(&mut byte)? == 1 {
            bytes.push(byte[0]);
            if byte[0] == b'\n' {
                return Ok(bytes);
            }
        }
        return Ok(Vec::new());
    }
    bytes.truncate(whole);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_whole_lines_and_a_batch_that_was_begun_is_told_again_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = journal::file_of(folder.path(), 1);
        let line = format!("{}\n", "x".repeat(5000));
        std::fs::write(&path, format!("{}half", line.repeat(5))).unwrap();
        let first = read(&path, 0, None).unwrap();
        assert_eq!(first.len(), 3 * line.len());
        let rest = read(&path, first.len() as u64, None).unwrap();
        assert_eq!(rest.len(), 2 * line.len());
        assert!(read(&path, 5 * line.len() as u64, None).unwrap().is_empty(), "half a line waits");
        assert_eq!(read(&path, 0, Some(line.len() as u64)).unwrap().len(), line.len());
        std::fs::write(&path, format!("{}\n", "x".repeat(40_000))).unwrap();
        assert_eq!(read(&path, 0, None).unwrap().len(), 40_001);
    }
}
