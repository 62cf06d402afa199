//! A local socket that says how a role is doing (cli.md, "Looking inside").
//!
//! One line of JSON asks, one line answers. Only root and the user that runs the role are answered.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use connlib_tunnel::why::Question;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader as AsyncBufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::error::{Error, OsRefused};
use crate::handle::{Answer, Request};

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait after a connection could not be taken: most likely there are too many files open.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest question.
const MAX_QUESTION: u64 = 4_096;

/// How many questions may wait.
const QUESTIONS: usize = 8;

/// Why a running role could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// Nothing listens there.
    #[error("nothing listens on {path}: {source}; is it running, and may you ask it?", path = path.display())]
    NotRunning {
        /// Where.
        path: PathBuf,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// It listens and does not answer.
    #[error("{path} gave no answer: {source}; only root and the user that runs it are answered", path = path.display())]
    NoAnswer {
        /// Where.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
}

/// Asks a running role how it is doing.
///
/// # Errors
///
/// [`StatusError`].
pub fn query(path: &Path) -> Result<serde_json::Value, StatusError> {
    ask(path, &serde_json::json!({"verb": "status"}))
}

/// Asks a running role what would become of a packet, and why.
///
/// # Errors
///
/// [`StatusError`].
pub fn why(path: &Path, packet: &Question) -> Result<serde_json::Value, StatusError> {
    let question = serde_json::json!({"verb": "why", "packet": packet.to_string()});

    ask(path, &question)
}

fn ask(path: &Path, question: &serde_json::Value) -> Result<serde_json::Value, StatusError> {
    let mut stream = StdUnixStream::connect(path).map_err(|source| StatusError::NotRunning {
        path: path.to_owned(),
        source,
    })?;
    let ask = || -> std::io::Result<serde_json::Value> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{question}\n").as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        if line.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }

        Ok(serde_json::from_str(&line)?)
    };

    ask().map_err(|source| StatusError::NoAnswer {
        path: path.to_owned(),
        source,
    })
}

/// Where a role listens if it is not told: `/run/connlib` for root, else under `$XDG_RUNTIME_DIR`.
pub fn default_path(role: &str) -> Option<PathBuf> {
    let dir = if connlib_os::process::effective_uid() == 0 {
        PathBuf::from("/run")
    } else {
        PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?)
    };

    Some(dir.join("connlib").join(format!("{role}.sock")))
}

/// The socket of a running role. It is removed when this is dropped.
pub(crate) struct StatusSocket {
    path: PathBuf,
    questions: mpsc::Receiver<Request>,
}

impl StatusSocket {
    /// Listens at `path`. A path that was asked for must work; the default one may not.
    pub(crate) fn bind(
        runtime: &Runtime,
        path: Option<PathBuf>,
        role: &str,
    ) -> Result<Option<Self>, Error> {
        let is_asked_for = path.is_some();
        let Some(path) = path.or_else(|| default_path(role)) else {
            return Ok(None);
        };
        let _inside = runtime.enter();
        match listen(&path) {
            Ok(listener) => {
                let (sender, questions) = mpsc::channel(QUESTIONS);
                runtime.spawn(serve(listener, sender));
                Ok(Some(Self { path, questions }))
            }
            Err(error) if is_asked_for => Err(OsRefused::LocalSocket {
                path,
                source: Arc::new(error),
            }
            .into()),
            Err(error) => {
                tracing::info!(path = %path.display(), %error, "No socket for `status`");
                Ok(None)
            }
        }
    }

    /// What is asked next; for ever nothing where there is no socket.
    pub(crate) async fn next(socket: &mut Option<Self>) -> Request {
        let question = match socket {
            Some(socket) => socket.questions.recv().await,
            None => None,
        };
        match question {
            Some(question) => question,
            None => std::future::pending().await,
        }
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "The socket's file stays");
        }
    }
}

fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // What a killed process left behind; one that lives answers.
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket {
        if StdUnixStream::connect(path).is_ok() {
            return Err(std::io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;

    Ok(listener)
}

/// Where connections come from.
trait Listen {
    fn next(&self) -> impl Future<Output = std::io::Result<UnixStream>> + Send;
}

impl Listen for UnixListener {
    async fn next(&self) -> std::io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

async fn serve(listener: impl Listen, questions: mpsc::Sender<Request>) {
    loop {
        let stream = match listener.next().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "A question can't be taken");
                sleep(PAUSE).await;
                continue;
            }
        };
        let questions = questions.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(stream, &questions).await {
                tracing::debug!(%error, "A question stays without an answer");
            }
        });
    }
}

async fn answer(stream: UnixStream, questions: &mpsc::Sender<Request>) -> std::io::Result<()> {
    use tokio::io::AsyncReadExt as _;

    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != connlib_os::process::effective_uid() {
        return Err(std::io::ErrorKind::PermissionDenied.into());
    }
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = AsyncBufReader::new(read.take(MAX_QUESTION));
    timeout(PATIENCE, read.read_line(&mut line)).await??;
    let (sender, report) = oneshot::channel();
    let answer = match request(&serde_json::from_str(&line)?, Answer::Task(sender)) {
        Ok(request) => {
            let gone = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
            questions
                .send(request)
                .await
                .map_err(|_| std::io::ErrorKind::BrokenPipe)?;
            timeout(PATIENCE, report).await?.map_err(gone)?
        }
        Err(error) => serde_json::json!({"error": error}),
    };

    write.write_all(format!("{answer}\n").as_bytes()).await
}

/// What a question asks for, or what is wrong with it.
fn request(question: &serde_json::Value, answer: Answer) -> Result<Request, String> {
    let text = |key: &str| question.get(key).and_then(|value| value.as_str());
    match text("verb") {
        Some("status") => Ok(Request::Report(answer)),
        Some("why") => {
            let packet = text("packet").ok_or("there is no `packet`")?;
            let packet: Question = packet.parse().map_err(|error| format!("{error}"))?;
            Ok(Request::Explain(packet, answer))
        }
        Some(_) | None => Err("this verb is not in this version".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// One that has no room for connections at first.
    struct Full {
        failures: Mutex<u32>,
        connections: Mutex<Vec<UnixStream>>,
    }

    impl Listen for Full {
        async fn next(&self) -> std::io::Result<UnixStream> {
            let failures = *self.failures.lock().unwrap();
            if failures > 0 {
                *self.failures.lock().unwrap() -= 1;
                return Err(std::io::Error::from_raw_os_error(libc::EMFILE));
            }
            let next = self.connections.lock().unwrap().pop();
            match next {
                Some(stream) => Ok(stream),
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test]
    async fn questions_are_taken_again_once_there_is_room_for_them() {
        let (mut asking, asked) = UnixStream::pair().unwrap();
        let (sender, mut questions) = mpsc::channel(QUESTIONS);
        let listener = Full {
            failures: Mutex::new(3),
            connections: Mutex::new(vec![asked]),
        };
        let before = tokio::time::Instant::now();
        tokio::spawn(serve(listener, sender));

        asking.write_all(b"{\"verb\":\"status\"}\n").await.unwrap();
        let Some(Request::Report(question)) = questions.recv().await else {
            panic!("another question");
        };
        question.give("well".into());
        let mut answer = String::new();
        asking.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "\"well\"\n");
        assert!(before.elapsed() >= PAUSE * 3, "it doesn't spin");
    }
}
