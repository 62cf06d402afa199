//! Connections that speak HTTP.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};

use connlib_wire::dns::{MAX_MESSAGE, is_answer_to};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::CONTENT_TYPE;
use hyper::rt::Executor;
use hyper::{Response, StatusCode, Version, http};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::super::lock;
use super::target::{MEDIA_TYPE, Target};

/// A connection that can be asked.
pub(super) enum Connection {
    Http1(Http1),
    Http2(Http2),
}

/// One request at a time.
pub(super) struct Http1 {
    sender: http1::SendRequest<String>,
    /// Shows that this one exists.
    _token: Arc<()>,
}

/// Many requests at once. Clones are the same connection.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: http2::SendRequest<String>,
    identity: Arc<()>,
}

/// What is wrong with an answer.
#[derive(Debug)]
pub(super) enum Flaw {
    /// There is none, because the connection ended.
    Connection(String),
    /// What the server said is none.
    Answer(String),
}

/// What moves the bytes of connections; ends with the last clone.
#[derive(Clone, Default)]
pub(super) struct Drivers(Arc<Mutex<JoinSet<()>>>);

/// Where a connection starts tasks; it must not keep what keeps itself.
#[derive(Clone)]
struct Spawner(Weak<Mutex<JoinSet<()>>>);

/// How much of one answer the server may send unasked: more than any message.
const STREAM_WINDOW: u32 = 1 << 17;

/// How much of all answers together.
const CONNECTION_WINDOW: u32 = 1 << 20;

impl Connection {
    /// Speaks HTTP on a connection. `token` is kept with one of HTTP/1.1.
    pub(super) async fn new(
        stream: TlsStream<TcpStream>,
        drivers: &Drivers,
        token: Arc<()>,
    ) -> hyper::Result<Self> {
        let (_, session) = stream.get_ref();
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        if is_http2 {
            let (sender, connection) = http2::Builder::new(drivers.spawner())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .handshake(io)
                .await?;
            drivers.spawner().drive(connection);

            return Ok(Self::Http2(Http2 {
                sender,
                identity: Arc::default(),
            }));
        }

        let (sender, connection) = http1::handshake(io).await?;
        drivers.spawner().drive(connection);

        Ok(Self::Http1(Http1 {
            sender,
            _token: token,
        }))
    }
}

impl Http1 {
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Asks; afterwards the connection can be used again if there is an answer.
    pub(super) async fn ask(&mut self, target: &Target, message: &[u8]) -> Result<Vec<u8>, Flaw> {
        self.sender.ready().await?;
        let request = target.request(message, Version::HTTP_11)?;
        let response = self.sender.send_request(request).await?;

        answer(response, message).await
    }
}

impl Http2 {
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether both are the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.identity, &other.identity)
    }

    pub(super) async fn ask(&mut self, target: &Target, message: &[u8]) -> Result<Vec<u8>, Flaw> {
        self.sender.ready().await?;
        let request = target.request(message, Version::HTTP_2)?;
        let response = self.sender.send_request(request).await?;

        answer(response, message).await
    }
}

impl From<hyper::Error> for Flaw {
    fn from(error: hyper::Error) -> Self {
        // The library's own words leave the cause out.
        let cause = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        if error.is_parse() {
            Self::Answer(format!("it speaks no HTTP: {cause}"))
        } else {
            Self::Connection(cause)
        }
    }
}

impl From<http::Error> for Flaw {
    fn from(error: http::Error) -> Self {
        Self::Answer(format!("it can't be requested: {error}"))
    }
}

impl Drivers {
    fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.0))
    }
}

impl Spawner {
    fn drive(&self, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
        self.execute(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "A connection to a name server broke");
            }
        });
    }
}

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        // Without anybody who wants answers there is nothing to move.
        if let Some(tasks) = self.0.upgrade() {
            let mut tasks = lock(&tasks);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }
}

/// Reads an answer, and gives it the id of what was asked.
async fn answer(response: Response<Incoming>, message: &[u8]) -> Result<Vec<u8>, Flaw> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(Flaw::Answer(format!("it answered {}", head.status)));
    }
    let media_type = head.headers.get(CONTENT_TYPE);
    if media_type.is_none_or(|media_type| media_type != MEDIA_TYPE) {
        let cause = format!("it answered with {media_type:?} instead of {MEDIA_TYPE}");
        return Err(Flaw::Answer(cause));
    }

    let mut answer = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if answer.len() + data.len() > MAX_MESSAGE {
            let cause = format!("it answered with more than {MAX_MESSAGE} bytes");
            return Err(Flaw::Answer(cause));
        }
        answer.extend_from_slice(&data);
    }
    if let (Some(id), Some(own)) = (answer.first_chunk_mut::<2>(), message.first_chunk()) {
        *id = *own;
    }
    if !is_answer_to(message, &answer) {
        return Err(Flaw::Answer("it answered something else".into()));
    }

    Ok(answer)
}
