//! The socket that admins ask at: one JSON request per line, one JSON answer per line.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ServerError;
use super::core::CoreHandle;
use crate::admin::Request;

/// Who may open the socket at all.
const MODE: u32 = 0o600;

/// The longest request, in bytes; a topology file travels in it.
const MAX_REQUEST: u64 = 16 * 1024 * 1024;

/// How long an admin may be silent.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);

const ROOT: u32 = 0;

/// The admin socket. Its file goes when this is dropped.
#[derive(Debug)]
pub(super) struct AdminListener {
    listener: UnixListener,
    path: PathBuf,
    /// Who runs this portal.
    owner: u32,
}

impl AdminListener {
    /// Makes the socket. One that a portal left behind that is gone is replaced.
    pub(super) fn bind(path: PathBuf) -> Result<Self, ServerError> {
        let refused = |source| ServerError::AdminSocket {
            path: path.clone(),
            source,
        };
        remove_left_behind(&path).map_err(refused)?;
        let listener = UnixListener::bind(&path).map_err(refused)?;
        let restrict = || {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(MODE))?;
            // What this process makes belongs to whom it runs as.
            std::fs::symlink_metadata(&path).map(|metadata| metadata.uid())
        };
        let owner = restrict().map_err(refused)?;

        Ok(Self {
            listener,
            path,
            owner,
        })
    }

    /// Answers until `stop` says so.
    pub(super) async fn run(self, core: CoreHandle, mut stop: watch::Receiver<bool>) {
        let mut admins = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = admins.join_next() => continue,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, _)) => match self.admin(&stream) {
                    Some(uid) => drop(admins.spawn(answer_all(stream, uid, core.clone()))),
                    None => tracing::warn!("Refusing another user at the admin socket"),
                },
                Err(error) => {
                    tracing::debug!(%error, "Can't accept an admin");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    /// Who is at the other end, if that user may ask.
    fn admin(&self, stream: &UnixStream) -> Option<u32> {
        let user = stream.peer_cred().ok()?.uid();

        (user == self.owner || user == ROOT).then_some(user)
    }
}

impl Drop for AdminListener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "Can't remove the admin socket");
        }
    }
}

async fn answer_all(stream: UnixStream, uid: u32, core: CoreHandle) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        let mut limited = (&mut reader).take(MAX_REQUEST);
        match timeout(REQUEST_WITHIN, limited.read_line(&mut line)).await {
            Ok(Ok(length)) if length > 0 => {}
            Ok(Ok(_) | Err(_)) | Err(_) => return,
        }
        let Ok(request) = serde_json::from_str::<Request>(&line) else {
            tracing::debug!("Ignoring an admin who asks for nothing that this version knows");
            return;
        };
        let Some(answer) = core.admin(uid, request).await else {
            return;
        };
        // Plain enums with text keys: serde_json can't fail on them.
        let mut answer = serde_json::to_string(&answer).unwrap_or_default();
        answer.push('\n');
        if writer.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Removes a socket at `path` that nobody listens at. Anything else there stays.
fn remove_left_behind(path: &Path) -> io::Result<()> {
    let is_socket = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type().is_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !is_socket {
        return Err(io::ErrorKind::AlreadyExists.into());
    }

    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}
