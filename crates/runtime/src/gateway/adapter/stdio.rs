//! A program that speaks MCP on its standard streams.

use super::{LARGEST, Link};
use anyhow::{Context, Result};
use passavant_host as system;
use passavant_proto::others_text::shown;
use std::{collections::BTreeMap, path::PathBuf, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStderr},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Time for a program to end by itself after the end of its input, and again after it was asked to.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// Variables of the environment that every program gets; all others have to be configured.
const ALWAYS: [&str; 9] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR"];
/// Lines of its standard error that are logged per second.
const LOGGED: u32 = 50;

/// A program, and how to start it.
#[derive(Clone, Debug)]
pub struct Command {
    pub program: String,
    pub args: Vec<String>,
    /// Its working directory.
    pub folder: PathBuf,
    /// Variables it gets besides those that every program gets. `None`: the value in our own
    /// environment.
    pub environment: BTreeMap<String, Option<String>>,
}

impl Command {
    pub(super) fn start(&self, name: &str) -> Result<Link> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.args)
            .current_dir(&self.folder)
            .env_clear()
            .envs(system::environment(&ALWAYS))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (name, value) in &self.environment {
            match value {
                Some(value) => {
                    command.env(name, value);
                }
                None => {
                    command.envs(system::environment(&[name.as_str()]));
                }
            }
        }
        // Child processes of the program end with it.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().with_context(|| {
            format!(
                "`{}` cannot be started: is it installed, and on PATH?",
                shown(&self.program, 100)
            )
        })?;
        // The process group keeps the program's id even after the program has ended, because its
        // children may still run.
        let group = Group(child.id());
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = streams else {
            anyhow::bail!("the program has no standard streams");
        };
        let (to, mut written) = mpsc::channel::<String>(64);
        let (lines, from) = mpsc::channel(64);
        let ended = CancellationToken::new();
        tracing::info!(server = name, pid = child.id(), "the MCP server was started");
        let stop = ended.clone();
        let (own, log) = (name.to_owned(), tokio::spawn(log(name.to_owned(), stderr)));
        tokio::spawn(async move {
            let writing = async {
                while let Some(mut line) = written.recv().await {
                    line.push('\n');
                    if stdin.write_all(line.as_bytes()).await.is_err()
                        || stdin.flush().await.is_err()
                    {
                        return;
                    }
                }
            };
            tokio::select! {
                () = writing => {}
                () = read_lines(stdout, lines) => {}
                () = stop.cancelled() => {}
                _ = child.wait() => {}
            }
            drop(stdin);
            let status = finish(&mut child, &group).await;
            tracing::info!(server = own, status, "the MCP server has ended");
            log.abort();
            stop.cancel();
        });
        Ok(Link { to, from, ended })
    }
}

/// The process group of a program. Dropping this kills whatever is left of it.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        signal(self.0, true);
    }
}

/// Waits for a program whose input has ended, and kills it if necessary.
async fn finish(child: &mut Child, group: &Group) -> String {
    let text = |status: std::io::Result<std::process::ExitStatus>| {
        status.map_or_else(|error| error.to_string(), |status| status.to_string())
    };
    if let Ok(status) = timeout(GRACE, child.wait()).await {
        return text(status);
    }
    signal(group.0, false);
    if let Ok(status) = timeout(GRACE, child.wait()).await {
        return text(status);
    }
    signal(group.0, true);
    let _ = child.start_kill();
    text(child.wait().await)
}

/// Signals a program and its children: to terminate, or to be killed.
#[cfg(unix)]
fn signal(group: Option<u32>, kill: bool) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let signal = if kill { Signal::KILL } else { Signal::TERM };
    let pid = group.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended already.
        let _ = kill_process_group(pid, signal);
    }
}

#[cfg(not(unix))]
fn signal(_: Option<u32>, _: bool) {}

/// Reads lines of limited length; a line that is too long ends the server.
async fn read_lines(from: impl AsyncRead + Unpin, to: mpsc::Sender<String>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = (LARGEST + 1) as u64;
        match (&mut from).take(most).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) if line.len() > LARGEST => {
                tracing::warn!("the MCP server wrote a line that is larger than it may be");
                return;
            }
            Ok(_) => {}
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            tracing::warn!("the MCP server wrote a line that is not UTF-8");
            continue;
        };
        let text = text.trim();
        if !text.is_empty() && to.send(text.to_owned()).await.is_err() {
            return;
        }
    }
}

/// Logs its standard error: sanitized, shortened and limited in rate.
async fn log(server: String, stderr: ChildStderr) {
    let mut from = BufReader::new(stderr);
    let mut line = Vec::new();
    let (mut since, mut count) = (std::time::Instant::now(), 0);
    loop {
        line.clear();
        match (&mut from).take(16 * 1024).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if since.elapsed() > Duration::from_secs(1) {
            (since, count) = (std::time::Instant::now(), 0);
        }
        count += 1;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if count <= LOGGED && !text.is_empty() {
            tracing::info!(server, line = shown(text, 500), "standard error of the MCP server");
        }
    }
}
