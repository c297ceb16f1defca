//! Lines of the log on their way to standard error, by a thread of their own. Whoever reads them may
//! stop (a full pipe, a paused terminal, a full disk): nothing else waits for them. Later lines are
//! lost and counted, and the count is written before the next line that gets through.

use crate::config::LogFormat;
use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};
use tracing_subscriber::fmt::{
    MakeWriter,
    format::Writer,
    time::{FormatTime, SystemTime},
};

/// Lines that wait at most.
const WAITING: usize = 8192;
/// How long the end of the process waits for the lines before it.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Takes lines; never blocks.
#[derive(Clone)]
pub(crate) struct LogLines {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

enum Line {
    Text(Vec<u8>),
    /// Answered once everything before it was written.
    End(SyncSender<()>),
}

impl LogLines {
    /// Starts the thread that writes.
    pub(crate) fn start(out: impl Write + Send + 'static, format: LogFormat) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let of_thread = Arc::clone(&lost);
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || write_all(out, &waiting, &of_thread, format))?;
        Ok(Self { lines, lost })
    }

    /// Waits until the lines so far are written, for [`LAST_LINES`] at most.
    pub(crate) fn finish(&self) {
        let (done, written) = sync_channel(1);
        let began = std::time::Instant::now();
        let mut end = Line::End(done);
        // The queue may be full, and may drain.
        while let Err(TrySendError::Full(back)) = self.lines.try_send(end) {
            if began.elapsed() > LAST_LINES {
                return;
            }
            end = back;
            thread::sleep(Duration::from_millis(5));
        }
        match written.recv_timeout(LAST_LINES.saturating_sub(began.elapsed())) {
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}

fn write_all(mut out: impl Write, waiting: &Receiver<Line>, lost: &AtomicU64, format: LogFormat) {
    while let Ok(line) = waiting.recv() {
        match line {
            Line::Text(text) => {
                let lines = lost.swap(0, Ordering::Relaxed);
                let notice = if lines == 0 { Vec::new() } else { notice(lines, format) };
                if lines > 0 && out.write_all(&notice).is_err() {
                    lost.fetch_add(lines + 1, Ordering::Relaxed);
                } else if out.write_all(&text).is_err() {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            Line::End(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
    }
}

/// What is written where lines are missing.
fn notice(lines: u64, format: LogFormat) -> Vec<u8> {
    const SAID: &str = "lines of the log were lost: nobody read them, or they could not be written";
    let mut now = String::new();
    // A clock that cannot be formatted leaves the time out.
    let _ = SystemTime.format_time(&mut Writer::new(&mut now));
    let target = module_path!();
    match format {
        LogFormat::Text => format!("{now}  WARN {target}: {SAID} lines={lines}\n"),
        LogFormat::Json => {
            let fields = serde_json::json!({"message": SAID, "lines": lines});
            let line = serde_json::json!({"timestamp": now, "level": "WARN", "fields": fields, "target": target});
            format!("{line}\n")
        }
    }
    .into_bytes()
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = OneLine<'a>;

    fn make_writer(&'a self) -> OneLine<'a> {
        OneLine(self, Vec::new())
    }
}

/// One line, sent when it is complete.
pub(crate) struct OneLine<'a>(&'a LogLines, Vec<u8>);

impl Write for OneLine<'_> {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OneLine<'_> {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.1);
        if !text.is_empty() && self.0.lines.try_send(Line::Text(text)).is_err() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, mpsc};

    /// Writes what it is told to, after it was let.
    struct Stalled {
        go: Option<Receiver<()>>,
        fails: usize,
        seen: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stalled {
        fn write(&mut self, part: &[u8]) -> io::Result<usize> {
            if let Some(go) = self.go.take() {
                go.recv().unwrap();
            }
            if self.fails > 0 {
                self.fails -= 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.seen.lock().unwrap().extend_from_slice(part);
            Ok(part.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(log: &LogLines, text: &str) {
        log.make_writer().write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    fn told(seen: &Mutex<Vec<u8>>) -> (usize, Vec<u64>) {
        let text = String::from_utf8(seen.lock().unwrap().clone()).unwrap();
        let told = text.lines().filter_map(|line| line.split_once("lines=")?.1.parse().ok());
        (text.lines().filter(|line| line.starts_with("line ")).count(), told.collect())
    }

    #[test]
    fn what_nobody_reads_holds_nobody_up_and_every_lost_line_is_told() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (go, wait) = mpsc::channel();
        let out = Stalled { go: Some(wait), fails: 0, seen: Arc::clone(&seen) };
        let log = LogLines::start(out, LogFormat::Text).unwrap();
        for i in 0..WAITING + 5000 {
            line(&log, &format!("line {i}"));
        }
        // An end in time, although the writer is stuck.
        log.finish();
        go.send(()).unwrap();
        while told(&seen).0 < WAITING {
            thread::sleep(Duration::from_millis(5));
        }
        line(&log, "line last");
        log.finish();
        let (written, lost) = told(&seen);
        assert_eq!(written as u64 + lost.iter().sum::<u64>(), (WAITING + 5001) as u64);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_too() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let out = Stalled { go: None, fails: 3, seen: Arc::clone(&seen) };
        let log = LogLines::start(out, LogFormat::Text).unwrap();
        for i in 0..5 {
            line(&log, &format!("line {i}"));
        }
        log.finish();
        let (written, lost) = told(&seen);
        assert_eq!(written as u64 + lost.iter().sum::<u64>(), 5);
        assert!(written >= 1, "{lost:?}");
    }

    #[test]
    fn a_notice_in_json_is_json() {
        let line: serde_json::Value = serde_json::from_slice(&notice(7, LogFormat::Json)).unwrap();
        assert_eq!((&line["fields"]["lines"], &line["level"]), (&7.into(), &"WARN".into()));
    }
}
