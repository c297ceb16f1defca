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

/// Bytes of one batch to an IdP elsewhere: a form with them stays below what it reads.
const REMOTE_BATCH: usize = 16 * 1024;
/// Bytes of one batch to a party of this process.
const LOCAL_BATCH: usize = 512 * 1024;
/// How often something is told: requests come first.
const EVERY: Duration = Duration::from_millis(250);
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

/// The place in the journal: what is before it was told, or is being told up to `until`. A batch that was
/// begun is told again as it was, so that it is known where it has arrived before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    file: u64,
    offset: u64,
    #[serde(default)]
    until: Option<u64>,
}

/// Who is told what.
pub(crate) struct Told {
    /// What the gateway is called.
    pub(crate) gateway: String,
    /// Who.
    pub(crate) desk: Desk,
    /// The MCP servers whose calls are told.
    pub(crate) resources: Vec<String>,
}

impl Told {
    /// The lines of a batch that are for this desk.
    fn of(&self, lines: &str) -> String {
        let own: Vec<String> = self
            .resources
            .iter()
            .map(|resource| format!("\"resource\":{}", serde_json::Value::from(resource.as_str())))
            .collect();
        let mut out = String::with_capacity(lines.len());
        for line in lines.lines() {
            let shed = line.starts_with("{\"kind\":\"shed\"");
            if shed || own.iter().any(|own| line.contains(own)) {
                out.push_str(line);
                out.push('\n');
            }
        }
        out
    }
}

/// What is to be told next, and the place it was taken from.
struct Batch {
    place: Place,
    lines: String,
}

/// Tells of everything in the journal, and goes on until `stop`.
pub(crate) async fn run(folder: PathBuf, to: Told, stop: CancellationToken) {
    let kept = folder.join(format!("told-{}.json", &to.desk.name()[..12]));
    let local = !matches!(to.desk, Desk::Remote { .. });
    let most = if local { LOCAL_BATCH } else { REMOTE_BATCH };
    let mut done: Option<Place> = None;
    let mut failing = false;
    loop {
        let stopping = stop.is_cancelled();
        let told = step(&folder, &kept, &to, most, done).await;
        let (wait, ended) = match told {
            Ok(Some(place)) => {
                done = Some(place);
                // Elsewhere the way there is pause enough.
                (if local { EVERY } else { Duration::ZERO }, false)
            }
            Ok(None) => (EVERY, stopping),
            Err(error) => {
                if !failing {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "a report of calls was not taken; it is tried again");
                }
                (AFTER_FAILURE, stopping)
            }
        };
        failing = wait == AFTER_FAILURE;
        if ended {
            return;
        }
        tokio::select! {
            () = stop.cancelled(), if !stopping => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Tells of one batch, and answers how far it got; `None` where there was nothing. Files are read and written
/// apart from the threads that answer requests.
async fn step(
    folder: &Path,
    kept: &Path,
    to: &Told,
    most: usize,
    done: Option<Place>,
) -> Result<Option<Place>> {
    let (folder, kept) = (folder.to_owned(), kept.to_owned());
    let looked = tokio::task::spawn_blocking(move || {
        anyhow::Ok((next(&folder, &kept, most, done)?, journal::name(&folder)?))
    });
    let (next, journal) = looked.await??;
    let Some(Batch { place, lines }) = next else { return Ok(None) };
    let lines = to.of(&lines);
    if !lines.is_empty() {
        // The journal's own name, so that two nodes or a folder made anew are not taken for one another.
        let batch = format!("{journal} {} {}", place.file, place.offset);
        to.desk.take(&to.gateway, &batch, &lines).await?;
    }
    let offset = place.until.unwrap_or(place.offset);
    Ok(Some(Place { offset, until: None, ..place }))
}

/// The next batch, which is begun in the file that keeps the place.
fn next(folder: &Path, kept: &Path, most: usize, done: Option<Place>) -> Result<Option<Batch>> {
    let mut place = match done {
        Some(place) => place,
        None => place_of(kept)?,
    };
    let numbers = journal::numbers(folder)?;
    loop {
        let Some(first) = numbers.iter().copied().find(|number| *number >= place.file) else {
            return Ok(None);
        };
        if first != place.file {
            place = Place { file: first, ..Place::default() };
        }
        let lines = read(&journal::file_of(folder, place.file), place.offset, place.until, most)?;
        if !lines.is_empty() {
            let until = place.offset + lines.len() as u64;
            if place.until != Some(until) {
                place.until = Some(until);
                system::write_private(kept, &serde_json::to_vec(&place)?, false)?;
            }
            let lines = String::from_utf8_lossy(&lines).into_owned();
            return Ok(Some(Batch { place, lines }));
        }
        if numbers.last().is_none_or(|last| *last <= place.file) {
            return Ok(None);
        }
        place = Place { file: place.file + 1, ..Place::default() };
    }
}

fn place_of(kept: &Path) -> Result<Place> {
    match std::fs::read(kept) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} does not say where reporting stands", kept.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Place::default()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", kept.display())),
    }
}

/// Whole lines from `offset`, up to `until` or as many as make a batch.
fn read(path: &Path, offset: u64, until: Option<u64>, batch: usize) -> Result<Vec<u8>> {
    let mut file =
        File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    file.seek(SeekFrom::Start(offset))?;
    let most = until.map_or(batch as u64, |until| until.saturating_sub(offset));
    let mut bytes = Vec::new();
    file.by_ref().take(most).read_to_end(&mut bytes)?;
    if until.is_some() {
        return Ok(bytes);
    }
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole == 0 && bytes.len() == batch {
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
        let first = read(&path, 0, None, REMOTE_BATCH).unwrap();
        assert_eq!(first.len(), 3 * line.len());
        let rest = read(&path, first.len() as u64, None, REMOTE_BATCH).unwrap();
        assert_eq!(rest.len(), 2 * line.len());
        assert!(
            read(&path, 5 * line.len() as u64, None, REMOTE_BATCH).unwrap().is_empty(),
            "half a line waits"
        );
        assert_eq!(
            read(&path, 0, Some(line.len() as u64), REMOTE_BATCH).unwrap().len(),
            line.len()
        );
        std::fs::write(&path, format!("{}\n", "x".repeat(40_000))).unwrap();
        assert_eq!(read(&path, 0, None, REMOTE_BATCH).unwrap().len(), 40_001);
    }

    #[test]
    fn a_batch_that_was_begun_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("told.json");
        let path = journal::file_of(folder.path(), 1);
        std::fs::write(&path, "one\n").unwrap();
        let begun = next(folder.path(), &kept, LOCAL_BATCH, None).unwrap().unwrap();
        assert_eq!(begun.lines, "one\n");
        // More came, and nobody knows whether the first batch arrived.
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let again = next(folder.path(), &kept, LOCAL_BATCH, None).unwrap().unwrap();
        assert_eq!((again.place, again.lines.as_str()), (begun.place, "one\n"));
        let done = Place { offset: 4, until: None, ..again.place };
        let then = next(folder.path(), &kept, LOCAL_BATCH, Some(done)).unwrap().unwrap();
        assert_eq!(then.lines, "two\n");
        let done = Place { offset: 8, until: None, ..then.place };
        assert!(next(folder.path(), &kept, LOCAL_BATCH, Some(done)).unwrap().is_none());
        std::fs::write(journal::file_of(folder.path(), 2), "three\n").unwrap();
        let then = next(folder.path(), &kept, LOCAL_BATCH, Some(done)).unwrap().unwrap();
        assert_eq!((then.place.file, then.lines.as_str()), (2, "three\n"));
    }
}
