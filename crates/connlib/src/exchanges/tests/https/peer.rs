//! A server of HTTP that does what its test says.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use connlib_tunnel::dns::Server;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{ANY, Authority};

pub(super) struct Peer {
    pub(super) addr: std::net::SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// How many connections there were, and how many of them are over.
    opened: watch::Sender<usize>,
    closed: watch::Sender<usize>,
    close: Notify,
    /// Whether connections that are stuck go on.
    goes_on: watch::Sender<bool>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Version {
    Http1,
    Http2,
}

impl Version {
    pub(super) fn protocol(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
        }
    }
}

/// A body that is there at once.
#[derive(Default)]
pub(super) struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// What a request is answered with; `None` is silence.
pub(super) type Reply = Option<Response<Whole>>;

/// What a name server of HTTP answers.
pub(super) fn dns(message: Vec<u8>) -> Reply {
    reply(200, Some("application/dns-message"), message)
}

pub(super) fn reply(status: u16, media_type: Option<&str>, body: Vec<u8>) -> Reply {
    let mut response = Response::builder().status(status);
    if let Some(media_type) = media_type {
        response = response.header("content-type", media_type);
    }
    let body = (!body.is_empty()).then(|| body.into());

    response.body(Whole(body)).ok()
}

/// What asks get: the head of the request, and the message in it.
pub(super) trait Answering:
    Fn(&Parts, &[u8]) -> Reply + Clone + Send + Sync + 'static
{
}

impl<F: Fn(&Parts, &[u8]) -> Reply + Clone + Send + Sync + 'static> Answering for F {}

impl Peer {
    /// One at 127.0.0.1, and who certifies it.
    pub(super) async fn answering(
        version: Version,
        answer: impl Fn(&Parts, &[u8]) -> Reply + Clone + Send + Sync + 'static,
    ) -> (Authority, Self) {
        let authority = Authority::new();
        let acceptor = authority.acceptor("127.0.0.1", &[version.protocol()]);

        (authority, Self::new(acceptor, version, answer).await)
    }

    pub(super) async fn new(
        acceptor: TlsAcceptor,
        version: Version,
        answer: impl Fn(&Parts, &[u8]) -> Reply + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::serving(move |stream, _| {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    speak(stream, version, answer).await;
                }
            }
        })
        .await
    }

    /// One that does nothing until it is told to go on.
    pub(super) async fn stuck(acceptor: TlsAcceptor) -> Self {
        Self::serving(move |stream, state| {
            let acceptor = acceptor.clone();
            async move {
                let mut goes_on = state.goes_on.subscribe();
                goes_on.wait_for(|&goes_on| goes_on).await.unwrap();
                let stream = acceptor.accept(stream).await.unwrap();
                let answer = |_: &Parts, asked: &[u8]| dns(super::answer(asked));
                speak(stream, Version::Http2, answer).await;
            }
        })
        .await
    }

    /// One that closes the connection when it is asked.
    pub(super) async fn slamming(acceptor: TlsAcceptor) -> Self {
        Self::saying(acceptor, b"").await
    }

    /// One that speaks something else.
    pub(super) async fn babbling(acceptor: TlsAcceptor) -> Self {
        Self::saying(acceptor, b"220 mail.test ESMTP\r\n").await
    }

    async fn saying(acceptor: TlsAcceptor, what: &'static [u8]) -> Self {
        Self::serving(move |stream, _| {
            let acceptor = acceptor.clone();
            async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                stream.read_u8().await.unwrap();
                stream.write_all(what).await.unwrap();
                stream.flush().await.unwrap();
            }
        })
        .await
    }

    async fn serving<F>(serve: impl Fn(TcpStream, Arc<State>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(ANY).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.opened.send_modify(|count| *count += 1);
                let served = serve(stream, Arc::clone(&shared));
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    tokio::select! {
                        () = served => {}
                        () = state.close.notified() => {}
                    }
                    state.closed.send_modify(|count| *count += 1);
                });
            }
        });

        Self { addr, state }
    }

    pub(super) fn name(&self) -> Server {
        Server::Https(format!("https://{}/dns-query", self.addr))
    }

    /// How many connections there were.
    pub(super) fn connections(&self) -> usize {
        *self.state.opened.borrow()
    }

    /// Waits for so many connections to have come.
    pub(super) async fn wait_opened(&self, count: usize) {
        let mut opened = self.state.opened.subscribe();
        opened.wait_for(|&opened| opened >= count).await.unwrap();
    }

    pub(super) fn go_on(&self) {
        self.state.goes_on.send_replace(true);
    }

    pub(super) async fn close_all(&self) {
        self.state.close.notify_waiters();
        self.wait_closed().await;
    }

    /// Waits for all connections to be over.
    pub(super) async fn wait_closed(&self) {
        let mut closed = self.state.closed.subscribe();
        let opened = self.connections();
        closed.wait_for(|&closed| closed == opened).await.unwrap();
    }
}

async fn speak(stream: TlsStream<TcpStream>, version: Version, answer: impl Answering) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            let (head, _) = request.into_parts();
            let query = head.uri.query().unwrap_or_default();
            let value = query.split("dns=").last().unwrap_or_default();
            let message = BASE64_URL_SAFE_NO_PAD.decode(value).unwrap();
            match answer(&head, &message) {
                Some(response) => Ok::<_, Infallible>(response),
                None => pending().await,
            }
        }
    });
    let io = TokioIo::new(stream);
    // How it ends is for the client to judge.
    let _ = match version {
        Version::Http1 => {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(io, service)
                .await
        }
        Version::Http2 => {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(io, service)
                .await
        }
    };
}
