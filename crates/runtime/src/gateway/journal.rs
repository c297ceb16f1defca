//! The gateway's journal: JSON lines in the files of one folder, written by a thread of its own. A
//! written line survives the process. It is flushed to disk within half a second, and then survives
//! a crash of the machine; with `durability = "disk"` it is flushed before any request is sent to
//! an MCP server.

use super::{config::Durability, positions};
use crate::telemetry::Records;
use anyhow::{Context, Result};
use passavant_gateway::Entries;
use passavant_host as system;
use std::{
    fs::File,
    io::Write,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// At this size in bytes a file is closed and the next one begins.
const FILE: u64 = 64 * 1024 * 1024;
/// Size of the buffer in bytes.
const CHUNK: usize = 256 * 1024;
/// How long the writer waits for more lines while there are many.
const NAP: Duration = Duration::from_micros(200);
/// Pause before a failed write is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long written lines may wait to be flushed.
const FLUSH: Duration = Duration::from_millis(500);

/// The path of the file with this number.
pub(super) fn file_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("calls-{number:06}.jsonl"))
}

/// The journal's random id, made with the folder.
pub(super) fn name(folder: &Path) -> Result<String> {
    let file = folder.join("journal.id");
    if !file.exists() {
        system::write_private(&file, system::entropy().id().as_bytes(), true)?;
    }
    std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))
}

/// The numbers of the existing files, in order.
pub(super) fn numbers(folder: &Path) -> Result<Vec<u64>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("the folder {} cannot be read", folder.display()))?;
    let mut numbers: Vec<u64> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let number = name.to_str()?.strip_prefix("calls-")?.strip_suffix(".jsonl")?;
            number.parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

struct Open {
    file: File,
    number: u64,
    size: u64,
}

impl Open {
    fn number(folder: &Path, number: u64) -> Result<Self> {
        let path = file_of(folder, number);
        let file = system::append_private(&path)?;
        let size = file.metadata()?.len();
        let mut open = Self { file, number, size };
        if size > 0 {
            // An incomplete line, from when the process ended, stays a line of its own.
            open.write(b"\n").with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(open)
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Truncates the file to its last complete state, after a failed write.
    fn cut(&mut self, size: u64) {
        // If truncating fails, too, end the incomplete line before the next one.
        if self.file.set_len(size).is_ok() {
            self.size = size;
        } else {
            let _ = self.write(b"\n");
        }
    }
}

/// Starts the writer. It ends when all senders are gone and the last entry is on disk.
pub(super) fn start(
    folder: &Path,
    durability: Durability,
    keep_days: Option<NonZeroU32>,
    entries: Entries,
    records: Option<Records>,
) -> Result<oneshot::Receiver<()>> {
    system::private_folder(folder)?;
    name(folder)?;
    let newest = numbers(folder)?.pop().unwrap_or(0);
    // Reported files may have been moved away: their numbers are not used again.
    let reported = positions::highest_reported(folder);
    let number = if newest >= reported { newest.max(1) } else { reported + 1 };
    let mut open = Open::number(folder, number)?;
    prune(folder, number, keep_days);
    let folder = folder.to_owned();
    // A permanent second handle: if there are no descriptors left, written lines can still be
    // flushed.
    let current = Arc::new(Mutex::new(Arc::new(open.file.try_clone()?)));
    let dirty = Arc::new(AtomicBool::new(false));
    let (done, ended) = oneshot::channel();
    let stop = Arc::new(AtomicBool::new(false));
    if durability == Durability::Written {
        let (current, dirty, stop) = (Arc::clone(&current), Arc::clone(&dirty), Arc::clone(&stop));
        std::thread::Builder::new().name("journal-flush".to_owned()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(FLUSH);
                if dirty.swap(false, Ordering::AcqRel) {
                    let file = Arc::clone(&current.lock().unwrap_or_else(PoisonError::into_inner));
                    if let Err(error) = file.sync_data() {
                        dirty.store(true, Ordering::Release);
                        tracing::error!(%error, "the journal did not reach the disk; it is tried again");
                    }
                }
            }
        })?;
    }
    std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
        let mut bytes = Vec::with_capacity(CHUNK);
        while let Some(batch) = entries.take(FLUSH) {
            bytes.clear();
            for line in &batch.lines {
                if let Some(records) = &records {
                    records.tell(line);
                }
                bytes.extend_from_slice(line.as_bytes());
                bytes.push(b'\n');
            }
            if !bytes.is_empty() {
                write(&mut open, &bytes, durability);
                dirty.store(true, Ordering::Release);
            }
            entries.written(&batch);
            if batch.lines.len() > 1 {
                // Give requests time to add lines, so that several lines become one write.
                std::thread::sleep(NAP);
            }
            if open.size >= FILE {
                match turn(&folder, &open, &current) {
                    Ok(next) => {
                        open = next;
                        prune(&folder, open.number, keep_days);
                    }
                    // Writing continues in the old file, and the next file is tried again later.
                    Err(error) => {
                        tracing::error!(%error, "the journal's next file cannot be created");
                    }
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        if let Err(error) = open.file.sync_all() {
            tracing::error!(%error, "the journal did not reach the disk");
        }
        // The receiver may be gone.
        let _ = done.send(());
    })?;
    Ok(ended)
}

/// Retries until everything is written: no decision is given up. Requests that wait meanwhile are
/// refused.
fn write(open: &mut Open, bytes: &[u8], durability: Durability) {
    let mut failed = false;
    let whole = open.size;
    loop {
        let sync = durability == Durability::Disk;
        let written = open.write(bytes);
        let written = written.and_then(|()| if sync { open.file.sync_data() } else { Ok(()) });
        match written {
            Ok(()) => {
                if failed {
                    tracing::info!("the journal is written again");
                }
                return;
            }
            Err(error) if !failed => {
                tracing::error!(%error, "the journal cannot be written; requests are refused");
                failed = true;
            }
            Err(_) => {}
        }
        std::thread::sleep(AGAIN);
        open.cut(whole);
    }
}

fn turn(folder: &Path, open: &Open, current: &Mutex<Arc<File>>) -> Result<Open> {
    open.file.sync_all()?;
    let next = Open::number(folder, open.number + 1)?;
    *current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(next.file.try_clone()?);
    Ok(next)
}

/// Deletes full files that are older than `keep_days` and were reported to all parties.
fn prune(folder: &Path, current: u64, keep_days: Option<NonZeroU32>) {
    let Some(days) = keep_days else { return };
    let longest = Duration::from_secs(u64::from(days.get()) * 86_400);
    let below = current.min(positions::reported_through(folder));
    let numbers = numbers(folder).unwrap_or_default();
    for number in numbers.into_iter().filter(|number| *number < below) {
        let path = file_of(folder, number);
        let modified = std::fs::metadata(&path).and_then(|file| file.modified());
        if modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > longest)) {
            match std::fs::remove_file(&path) {
                Ok(()) => tracing::info!(
                    number,
                    "a file of the journal was deleted: it is old, and was reported"
                ),
                Err(error) => {
                    tracing::warn!(number, %error, "a file of the journal was not deleted");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use passavant_gateway::Trail;

    #[tokio::test]
    async fn what_was_told_to_be_written_is_in_the_file() {
        for durability in [Durability::Written, Durability::Disk] {
            let folder = tempfile::tempdir().unwrap();
            let file = file_of(folder.path(), 1);
            let held = || std::fs::read_to_string(&file).unwrap();
            for run in 0..2 {
                let (trail, entries) = Trail::new();
                let ended = start(folder.path(), durability, None, entries, None).unwrap();
                trail.note("{\"a\":1}").await.unwrap();
                assert!(held().ends_with("{\"a\":1}\n"), "run {run}: {}", held());
                drop(trail);
                ended.await.unwrap();
                // An incomplete line stays a line of its own.
                std::fs::write(&file, "{\"torn").unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_told_to_nobody_as_written() {
        let folder = tempfile::tempdir().unwrap();
        // Every write to this device fails with "no space left".
        std::os::unix::fs::symlink("/dev/full", file_of(folder.path(), 1)).unwrap();
        let (trail, entries) = Trail::new();
        let _ended = start(folder.path(), Durability::Written, None, entries, None).unwrap();
        assert!(trail.note("{\"a\":1}").await.is_err());
    }

    #[tokio::test]
    async fn numbers_of_files_that_were_reported_and_moved_away_do_not_come_again() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("told-x.json"), r#"{"file":3,"offset":70}"#).unwrap();
        let (trail, entries) = Trail::new();
        let ended = start(folder.path(), Durability::Written, None, entries, None).unwrap();
        trail.note("{}").await.unwrap();
        drop(trail);
        ended.await.unwrap();
        assert_eq!(numbers(folder.path()).unwrap(), [4]);
    }

    #[test]
    fn old_files_go_once_everybody_was_told_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let week = std::time::SystemTime::UNIX_EPOCH;
        for number in 1..=4 {
            let file = File::create(file_of(folder.path(), number)).unwrap();
            if number != 2 {
                file.set_modified(week).unwrap();
            }
        }
        std::fs::write(folder.path().join("told-x.json"), r#"{"file":3,"offset":0}"#).unwrap();
        prune(folder.path(), 4, None);
        assert_eq!(numbers(folder.path()).unwrap().len(), 4);
        prune(folder.path(), 4, NonZeroU32::new(7));
        assert_eq!(numbers(folder.path()).unwrap(), [2, 3, 4], "young, not told, current");
    }
}
