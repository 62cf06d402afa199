//! Asking a running portal over its admin socket, or a database at rest.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{Failure, Known, Request, Response, perform};
use crate::audit::Who;
use crate::model::Locations;
use crate::server::{clock, fresh_account, random};
use crate::state::Presence;
use crate::store::memory::Memory;
use crate::store::sqlite::{IfMissing, Sqlite};
use crate::store::{Store, StoreError};

/// How long a running portal may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How long a running portal may take to copy its database.
const COPIED_WITHIN: Duration = Duration::from_secs(600);

/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 256 * 1024 * 1024;

/// How long to wait for another process that works with the database, most likely another call like this one.
const WAIT_FOR_FILE: Duration = Duration::from_secs(2);

/// How often to look whether the other process is done.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whom to ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// A running portal, over its admin socket.
    Socket(PathBuf),
    /// A database that no running portal works with.
    File(PathBuf),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The request can't be answered.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The database can't be worked with.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody listens at the admin socket.
    #[error("no portal listens at {}: {source}; is `portal serve` running with this `--admin-socket`?", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The operating system or the portal doesn't let this user ask.
    #[error("not allowed to ask the portal at {}; use the user that runs it, or root", socket.display())]
    NotAllowed {
        /// The socket.
        socket: PathBuf,
    },
    /// The connection broke, or the answer makes no sense.
    #[error("the portal at {} gave no proper answer: {source}; is it of the same version?", socket.display())]
    NoAnswer {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The operating system doesn't say which user this is.
    #[error("can't find out which user this is: {0}")]
    UnknownUser(#[source] io::Error),
    /// The operating system has no random numbers.
    #[error("the operating system has no random numbers: {0}")]
    NoRandomness(#[from] getrandom::Error),
}

/// Asks `target` and waits for the answer. Needs a tokio runtime with I/O and time.
///
/// A file that isn't there is made by a request that adds to it. A path in a request that isn't absolute is taken from
/// this process's directory.
///
/// # Errors
///
/// Any [`AdminError`]. Nothing has changed then, unless the connection broke after the portal took the request.
pub async fn call(target: &Target, request: Request) -> Result<Response, AdminError> {
    let request = with_absolute_path(request);
    match target {
        Target::Socket(socket) => {
            let within = match matches!(request, Request::Backup { .. }) {
                true => COPIED_WITHIN,
                false => ANSWER_WITHIN,
            };
            let answer = tokio::time::timeout(within, ask(socket, &request)).await;
            let answer = answer.unwrap_or_else(|_| {
                Err(AdminError::NoAnswer {
                    socket: socket.clone(),
                    source: io::ErrorKind::TimedOut.into(),
                })
            })?;
            Ok(answer?)
        }
        Target::File(file) => work_on(file, &request).await,
    }
}

fn with_absolute_path(request: Request) -> Request {
    let Request::Backup { file } = request else {
        return request;
    };
    let file = std::path::absolute(&file).unwrap_or(file);

    Request::Backup { file }
}

async fn ask(socket: &Path, request: &Request) -> Result<Result<Response, Failure>, AdminError> {
    let no_answer = |source: io::Error| AdminError::NoAnswer {
        socket: socket.to_owned(),
        source,
    };
    let unreachable = |source: io::Error| {
        let socket = socket.to_owned();
        if source.kind() == io::ErrorKind::PermissionDenied {
            AdminError::NotAllowed { socket }
        } else {
            AdminError::NotRunning { socket, source }
        }
    };
    let mut stream = UnixStream::connect(socket).await.map_err(unreachable)?;

    let mut line = serde_json::to_string(request).map_err(|error| no_answer(error.into()))?;
    line.push('\n');
    // A portal that doesn't know us closes without reading; its answer, if any, tells more than a broken pipe.
    let written = stream.write_all(line.as_bytes()).await;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream).take(MAX_ANSWER);
    let read = reader.read_line(&mut answer).await;
    if answer.is_empty() {
        written.and(read).map_err(no_answer)?;
        return Err(AdminError::NotAllowed {
            socket: socket.to_owned(),
        });
    }

    serde_json::from_str(&answer).map_err(|error| no_answer(error.into()))
}

async fn work_on(file: &Path, request: &Request) -> Result<Response, AdminError> {
    let account = fresh_account()?;
    let if_missing = match request {
        Request::Apply { dry_run: false, .. } | Request::CreateToken { .. } => IfMissing::Create,
        Request::Apply { dry_run: true, .. } if !file.exists() => {
            let mut nothing = Memory::new(account);
            return answer(&mut nothing, request);
        }
        Request::Apply { .. }
        | Request::RevokeToken { .. }
        | Request::VerifyClient { .. }
        | Request::Explain { .. }
        | Request::Audit { .. }
        | Request::Backup { .. }
        | Request::Show => IfMissing::Fail,
    };

    let mut waited = Duration::ZERO;
    loop {
        match Sqlite::open(file, if_missing, &account) {
            Ok(mut store) => return answer(&mut store, request),
            Err(StoreError::InUse { .. }) if waited < WAIT_FOR_FILE => {
                tokio::time::sleep(LOOK_EVERY).await;
                waited += LOOK_EVERY;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn answer(store: &mut dyn Store, request: &Request) -> Result<Response, AdminError> {
    let directory = store.load()?;
    let known = Known {
        directory: &directory,
        presence: &Presence::default(),
        locations: &Locations::default(),
        unix: clock::unix(),
    };
    let who = Who::Admin { uid: own_uid()? };
    let performed = perform(&known, who, request, &mut random()?)?;

    Ok(performed.answer_from(store)?)
}

/// The user that this process runs as: the system tells both ends of a socket who the other one is.
fn own_uid() -> Result<u32, AdminError> {
    let uid = || -> io::Result<u32> {
        let (end, _other) = UnixStream::pair()?;
        Ok(end.peer_cred()?.uid())
    };

    uid().map_err(AdminError::UnknownUser)
}
