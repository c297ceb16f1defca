//! A Unix socket that is its owner's alone.

use anyhow::{Context, Result, bail};
use std::{
    fs,
    io::ErrorKind,
    os::unix::{fs::PermissionsExt, net::UnixStream as Plain},
    path::Path,
};
use tokio::net::{UnixListener, UnixStream};

/// Listens at `path`, where nobody but this user gets in: by the file's mode, and by asking the system who connects. What
/// a process that is gone has left there is taken away; a socket that somebody listens at stays.
pub fn private_socket(path: &Path) -> Result<UnixListener> {
    if Plain::connect(path).is_ok() {
        bail!("somebody listens at {} already\nhint: does this server run twice?", path.display());
    }
    match fs::symlink_metadata(path) {
        Ok(held) if std::os::unix::fs::FileTypeExt::is_socket(&held.file_type()) => {
            fs::remove_file(path).with_context(|| path.display().to_string())?;
        }
        Ok(_) => bail!("{} is no socket\nhint: move it away", path.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    }
    let listener = UnixListener::bind(path)
        .with_context(|| format!("{} cannot be listened at", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| path.display().to_string())?;
    Ok(listener)
}

/// The next connection of this user, or of the system's administrator; whoever else came between the making of the file
/// and its mode is sent away.
pub async fn next_of_own(listener: &UnixListener) -> UnixStream {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptors left: some come back.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let own = rustix::process::geteuid().as_raw();
        if stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
            return stream;
        }
        tracing::warn!("somebody else was sent away from the administration socket");
    }
}

/// Whether somebody listens at `path` and lets this user in.
pub fn is_open_socket(path: &Path) -> bool {
    Plain::connect(path).is_ok()
}
