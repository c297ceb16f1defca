//! Reports the journal to where IT reads it: batches of lines, in order, each accepted once. The
//! position in the journal is stored with it, so that a restart neither repeats nor skips a line.

use super::{
    journal,
    positions::{JournalPosition, position_of},
};
use anyhow::{Context, Result, bail};
use passavant_gateway::Trail;
use passavant_host as system;
use passavant_idp::Idp;
use passavant_outbound::{Outbound, discover_authorization_server};
use passavant_proto::mcp::call_record::CallRecord;
use passavant_proto::{identifier::Issuer, others_text::shown, secret::Secret};
use passavant_ras::Ras;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Bytes of one batch for a remote IdP: a form with them stays within the IdP's limit.
const REMOTE_BATCH: usize = 16 * 1024;
/// Bytes of one batch for a role of this process.
const LOCAL_BATCH: usize = 512 * 1024;
/// Pause between batches, so that requests come first.
const EVERY: Duration = Duration::from_millis(250);
/// Pause after a batch was not accepted.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// The recipient of reports.
#[derive(Clone)]
pub(super) enum ReportSink {
    /// An IdP of this process.
    Idp(Idp),
    /// A RAS of this process.
    Ras(Ras),
    /// The company's IdP, elsewhere.
    Remote { issuer: Issuer, client_id: String, secret: Secret, outbound: Outbound },
}

impl ReportSink {
    /// A name for the file that stores the position.
    fn name(&self) -> String {
        let issuer = match self {
            Self::Idp(idp) => idp.issuer(),
            Self::Ras(ras) => ras.issuer(),
            Self::Remote { issuer, .. } => issuer,
        };
        passavant_proto::secret::sha256(issuer.as_str().as_bytes())
    }

    /// Sends a batch. `Ok(false)`: it is refused permanently, so that sending it again is useless.
    async fn take(&self, gateway: &str, batch: &str, lines: &str) -> Result<bool> {
        match self {
            Self::Idp(idp) => idp.take_calls(gateway, batch, lines).await.map(|_| ())?,
            Self::Ras(ras) => ras.take_calls(gateway, batch, lines).await.map(|_| ())?,
            Self::Remote { issuer, client_id, secret, outbound } => {
                let metadata = discover_authorization_server(outbound, issuer).await?;
                let endpoint = metadata.passavant_gateway_records_endpoint.clone();
                let endpoint = endpoint.with_context(|| {
                    format!(
                        "{issuer} is not a Passavant identity provider: it does not accept reports \
                         of calls"
                    )
                })?;
                let form = [("batch", batch), ("lines", lines)];
                let basic = Some((client_id.as_str(), secret.expose()));
                let reach = metadata.reach_of(&endpoint);
                let answer = outbound.post_form(&endpoint, reach, &form, basic).await?;
                if answer.status != 200 {
                    let text = shown(&String::from_utf8_lossy(&answer.body), 300);
                    // These do not depend on the lines, and are fixed elsewhere: the secret, the
                    // rate, the server.
                    let elsewhere = [401, 403, 404, 408, 421, 425, 429].contains(&answer.status);
                    if (400..500).contains(&answer.status) && !elsewhere {
                        tracing::warn!(%issuer, status = answer.status, text, "calls were refused");
                        return Ok(false);
                    }
                    bail!("{issuer} answered {}: {text}", answer.status);
                }
            }
        }
        Ok(true)
    }
}

/// Reports the calls of some MCP servers to one recipient.
pub(super) struct Reporter {
    /// The name of the gateway.
    pub gateway: String,
    /// The recipient.
    pub sink: ReportSink,
    /// The MCP servers whose calls are reported.
    pub resources: Vec<String>,
    /// Where lines that could not be reported are recorded.
    pub trail: Trail,
}

impl Reporter {
    /// The lines of a batch that are for this recipient: those whose `resource` is one of its MCP
    /// servers.
    fn of<'l>(&self, lines: &'l str) -> Vec<&'l str> {
        let own = |line: &&str| {
            serde_json::from_str::<CallRecord<'_>>(line).is_ok_and(|line| {
                let resource = line.resource.as_ref();
                line.is_of_the_gateway() || self.resources.iter().any(|own| own == resource)
            })
        };
        lines.lines().filter(own).collect()
    }

    /// Reports a batch. If it is refused permanently, its lines are reported one by one; a line
    /// that is refused then is left out, and that is recorded.
    async fn tell(&self, batch: &str, lines: &str) -> Result<()> {
        let lines = self.of(lines);
        if lines.is_empty() || self.sink.take(&self.gateway, batch, &joined(&lines)).await? {
            return Ok(());
        }
        for (number, line) in lines.iter().enumerate() {
            let batch = format!("{batch}.{number}");
            if !self.sink.take(&self.gateway, &batch, &joined(&[line])).await? {
                self.left_out(&format!("{batch}, {} bytes", line.len())).await?;
            }
        }
        Ok(())
    }

    /// Records that a line was not reported. The record names no MCP server, so that it is not
    /// reported itself.
    async fn left_out(&self, what: &str) -> Result<()> {
        tracing::error!(what, "a line of the journal could not be reported");
        let line = serde_json::json!({"kind": "unreported", "desk": &self.sink.name()[..12], "line": what});
        Ok(self.trail.note(&line.to_string()).await?)
    }
}

fn joined(lines: &[&str]) -> String {
    lines.iter().flat_map(|line| [*line, "\n"]).collect()
}

/// The next lines to report, and their position.
struct Batch {
    position: JournalPosition,
    lines: String,
    /// The length of a line that is longer than a batch and is not reported.
    too_long: Option<u64>,
}

/// Reports everything in the journal, until `stop`.
pub(super) async fn run(folder: PathBuf, reporter: Reporter, stop: CancellationToken) {
    let kept = folder.join(format!("told-{}.json", &reporter.sink.name()[..12]));
    let local = !matches!(reporter.sink, ReportSink::Remote { .. });
    let most = if local { LOCAL_BATCH } else { REMOTE_BATCH };
    let mut done: Option<JournalPosition> = None;
    let mut failing = false;
    loop {
        let stopping = stop.is_cancelled();
        let outcome = step(&folder, &kept, &reporter, most, done).await;
        let (wait, ended) = match outcome {
            Ok(Some(position)) => {
                done = Some(position);
                // For a remote IdP the round trip is pause enough.
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

/// Reports one batch and returns the position after it; `None` if there was nothing. Files are read
/// and written outside of the threads that answer requests.
async fn step(
    folder: &Path,
    kept: &Path,
    reporter: &Reporter,
    most: usize,
    done: Option<JournalPosition>,
) -> Result<Option<JournalPosition>> {
    let (folder, kept) = (folder.to_owned(), kept.to_owned());
    let looked = tokio::task::spawn_blocking(move || {
        anyhow::Ok((next(&folder, &kept, most, done)?, journal::name(&folder)?))
    });
    let (next, journal) = looked.await??;
    let Some(Batch { position, lines, too_long }) = next else { return Ok(None) };
    // The id includes the journal's own, so that two nodes, or a folder that was created anew, are
    // not confused.
    let batch = format!("{journal} {} {}", position.file, position.offset);
    if let Some(length) = too_long {
        reporter.left_out(&format!("{batch}, {length} bytes")).await?;
    }
    reporter.tell(&batch, &lines).await?;
    let offset = position.until.unwrap_or(position.offset);
    Ok(Some(JournalPosition { offset, until: None, ..position }))
}

/// The next batch. Its end is stored with the position before it is sent.
fn next(
    folder: &Path,
    kept: &Path,
    most: usize,
    done: Option<JournalPosition>,
) -> Result<Option<Batch>> {
    let mut position = match done {
        Some(position) => position,
        None => position_of(kept)?,
    };
    let numbers = journal::numbers(folder)?;
    loop {
        let Some(first) = numbers.iter().copied().find(|number| *number >= position.file) else {
            return Ok(None);
        };
        if first != position.file {
            position = JournalPosition { file: first, ..JournalPosition::default() };
        }
        let path = journal::file_of(folder, position.file);
        if std::fs::metadata(&path).is_ok_and(|file| file.len() < position.offset) {
            // A different file of this name: the reported one was moved away.
            tracing::warn!(file = %path.display(), "the journal began anew; it is reported from its start");
            position = JournalPosition { file: position.file, ..JournalPosition::default() };
        }
        let (lines, length) = read(&path, position.offset, position.until, most)?;
        if length > 0 {
            let too_long = (length > lines.len() as u64).then_some(length);
            let until = position.offset + length;
            if position.until != Some(until) {
                position.until = Some(until);
                system::write_private(kept, &serde_json::to_vec(&position)?, false)?;
            }
            let lines = String::from_utf8_lossy(&lines).into_owned();
            return Ok(Some(Batch { position, lines, too_long }));
        }
        if numbers.last().is_none_or(|last| *last <= position.file) {
            return Ok(None);
        }
        position = JournalPosition { file: position.file + 1, ..JournalPosition::default() };
    }
}

/// Complete lines from `offset`, up to `until` or the size of a batch, and how many bytes of the
/// file they take. Of a line that is longer than a batch only the length is returned.
fn read(path: &Path, offset: u64, until: Option<u64>, batch: usize) -> Result<(Vec<u8>, u64)> {
    let mut file =
        File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    file.seek(SeekFrom::Start(offset))?;
    let most = until.map_or(batch as u64, |until| until.saturating_sub(offset).min(batch as u64));
    let mut bytes = Vec::new();
    file.by_ref().take(most).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole > 0 || bytes.len() < batch {
        bytes.truncate(whole);
        let length = bytes.len() as u64;
        return Ok((bytes, length));
    }
    let mut rest = BufReader::new(file);
    let mut length = bytes.len() as u64;
    loop {
        let held = rest.fill_buf()?;
        if held.is_empty() {
            // Its end is not written yet.
            return Ok((Vec::new(), 0));
        }
        let end = held.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(held.len(), |end| end + 1);
        rest.consume(used);
        length += used as u64;
        if end.is_some() {
            return Ok((Vec::new(), length));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::positions::{highest_reported, reported_through};

    #[test]
    fn batches_are_whole_lines_and_a_batch_that_was_begun_is_told_again_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = journal::file_of(folder.path(), 1);
        let line = format!("{}\n", "x".repeat(5000));
        std::fs::write(&path, format!("{}half", line.repeat(5))).unwrap();
        let length = |offset: usize, until: Option<usize>| {
            let until = until.map(|until| until as u64);
            let (lines, length) = read(&path, offset as u64, until, REMOTE_BATCH).unwrap();
            (lines.len(), usize::try_from(length).unwrap())
        };
        assert_eq!(length(0, None), (3 * line.len(), 3 * line.len()));
        assert_eq!(length(3 * line.len(), None), (2 * line.len(), 2 * line.len()));
        assert_eq!(length(5 * line.len(), None), (0, 0), "half a line waits");
        assert_eq!(length(0, Some(line.len())), (line.len(), line.len()));
        // A line that is longer than a batch is skipped once it is complete.
        std::fs::write(&path, "x".repeat(1_000_000)).unwrap();
        assert_eq!(length(0, None), (0, 0));
        std::fs::write(&path, format!("{}\nshort\n", "x".repeat(1_000_000))).unwrap();
        assert_eq!(length(0, None), (0, 1_000_001));
        assert_eq!(length(0, Some(1_000_001)), (0, 1_000_001), "and again after a restart");
        assert_eq!(length(1_000_001, None), (6, 6));
    }

    #[test]
    fn a_line_goes_to_whom_it_is_about_and_not_to_whom_it_mentions() {
        let (trail, _entries) = Trail::new();
        let sink = ReportSink::Remote {
            issuer: Issuer::parse("https://idp.example").unwrap(),
            client_id: "g".to_owned(),
            secret: Secret::new("s"),
            outbound: Outbound::new(&[]).unwrap(),
        };
        let resources = vec!["https://b.example/mcp".to_owned()];
        let reporter = Reporter { gateway: "g".to_owned(), sink, resources, trail };
        let about_a = r#"{"kind":"decision","resource":"https://a.example/mcp","arguments":{"resource":"https://b.example/mcp","secret_of_a":"42"}}"#;
        let nested = r#"{"kind":"decision","arguments":{"x":"\"resource\":\"https://b.example/mcp\""},"resource":"https://a.example/mcp"}"#;
        let about_b = r#"{"resource":"https:\/\/b.example\/mcp","kind":"decision"}"#;
        let shed = r#"{"kind":"shed","outcomes":1}"#;
        let lines =
            [about_a, nested, about_b, shed, "no json", r#"{"kind":"unreported"}"#].join("\n");
        assert_eq!(reporter.of(&lines), [about_b, shed]);
    }

    #[test]
    fn a_journal_that_was_moved_away_is_told_of_from_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("told-x.json");
        let path = journal::file_of(folder.path(), 1);
        std::fs::write(&path, "one\n").unwrap();
        let position = JournalPosition { file: 1, offset: 5000, until: None };
        let then = next(folder.path(), &kept, LOCAL_BATCH, Some(position)).unwrap().unwrap();
        assert_eq!(then.lines, "one\n");
        assert_eq!((reported_through(folder.path()), highest_reported(folder.path())), (1, 1));
    }

    #[test]
    fn a_batch_that_was_begun_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("told.json");
        let path = journal::file_of(folder.path(), 1);
        std::fs::write(&path, "one\n").unwrap();
        let begun = next(folder.path(), &kept, LOCAL_BATCH, None).unwrap().unwrap();
        assert_eq!(begun.lines, "one\n");
        // Lines were added, and it is unknown whether the first batch arrived.
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let again = next(folder.path(), &kept, LOCAL_BATCH, None).unwrap().unwrap();
        assert_eq!((again.position, again.lines.as_str()), (begun.position, "one\n"));
        let done = JournalPosition { offset: 4, until: None, ..again.position };
        let then = next(folder.path(), &kept, LOCAL_BATCH, Some(done)).unwrap().unwrap();
        assert_eq!(then.lines, "two\n");
        let done = JournalPosition { offset: 8, until: None, ..then.position };
        assert!(next(folder.path(), &kept, LOCAL_BATCH, Some(done)).unwrap().is_none());
        std::fs::write(journal::file_of(folder.path(), 2), "three\n").unwrap();
        let then = next(folder.path(), &kept, LOCAL_BATCH, Some(done)).unwrap().unwrap();
        assert_eq!((then.position.file, then.lines.as_str()), (2, "three\n"));
    }
}
