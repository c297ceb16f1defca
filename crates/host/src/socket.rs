//! A Unix socket that only its owner can use.

use anyhow::{Context, Result, bail};
use std::{
    fs,
    io::ErrorKind,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream as Plain,
    },
    path::Path,
};
use tokio::net::{UnixListener, UnixStream};

/// Listens at `path`, for this user only: guarded by the file's mode, and by asking the system who
/// connects. A socket left behind by a process that has ended is removed; one that a process
/// listens at stays.
pub fn private_socket(path: &Path) -> Result<UnixListener> {
    if Plain::connect(path).is_ok() {
        bail!(
            "another process is listening at {} already\n\
             hint: check whether this server is running twice",
            path.display()
        );
    }
    match fs::symlink_metadata(path) {
        Ok(held) if std::os::unix::fs::FileTypeExt::is_socket(&held.file_type()) => {
            fs::remove_file(path).with_context(|| path.display().to_string())?;
        }
        Ok(_) => bail!("{} is not a socket\nhint: move it away", path.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| path.display().to_string())?;
    Ok(listener)
}

/// The next connection of this user, or of root. Connections of others, who may have connected
/// before the mode was set, are closed.
pub async fn next_of_own(listener: &UnixListener) -> UnixStream {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // There are no descriptors left: some will become free.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let own = rustix::process::geteuid().as_raw();
        if stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
            return stream;
        }
        tracing::warn!("a connection of another user to the administration socket was refused");
    }
}

/// Whether a server of this user, or of root, listens at `path`. Other users' servers are not
/// trusted, and nothing is sent to them. Needs a runtime.
pub fn is_own_socket(path: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let is_ours = |uid: u32| uid == own || uid == 0;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = fs::metadata(folder.unwrap_or(Path::new(".")));
    // If others can replace the file, it cannot be trusted.
    let kept = folder.is_ok_and(|folder| is_ours(folder.uid()) && folder.mode() & 0o022 == 0);
    if !kept || !fs::symlink_metadata(path).is_ok_and(|held| is_ours(held.uid())) {
        return false;
    }
    let Ok(stream) = Plain::connect(path) else { return false };
    let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
    stream.and_then(|stream| stream.peer_cred()).is_ok_and(|peer| is_ours(peer.uid()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
mod tests {
    use super::{fs, is_own_socket, private_socket};
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_socket_is_believed_where_nobody_else_could_have_put_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let mode = |mode| {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        assert!(!is_own_socket(&path), "nothing is there");
        let listener = private_socket(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(is_own_socket(&path));
        for others in [0o777, 0o1777, 0o720, 0o702] {
            mode(others);
            assert!(!is_own_socket(&path), "{others:o}: others may put another one there");
        }
        mode(0o755);
        assert!(is_own_socket(&path));
        assert!(private_socket(&path).is_err(), "somebody listens");
        drop(listener);
        assert!(!is_own_socket(&path), "nobody listens");
        assert!(private_socket(&path).is_ok(), "what a dead one left goes");
    }
}
