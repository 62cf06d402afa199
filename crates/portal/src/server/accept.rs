//! From TCP to streams that HTTP is spoken on.
//!
//! TLS handshakes run beside each other, so that a slow one holds up nobody. A connection that hasn't become a
//! WebSocket after a while is cut, and there are only so many.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// How long a connection may live that isn't a WebSocket.
const UPGRADE_WITHIN: Duration = Duration::from_secs(15);

/// How many connections there may be; more wait in the system's queue.
const MAX_CONNECTIONS: u32 = 16_384;

/// How long to wait when the system has no file descriptor left.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Connections that are ready for HTTP.
#[derive(Debug)]
pub(super) struct Incoming {
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
    local_addr: SocketAddr,
}

/// Makes them ready.
pub(super) struct Accept {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    ready: mpsc::Sender<(Connection, SocketAddr)>,
    places: Arc<Semaphore>,
}

/// How many connections there may be yet.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Semaphore>);

impl Places {
    /// Waits until no connection is left.
    pub(super) async fn all_free(&self) {
        // The semaphore is never closed.
        let _ = self.0.acquire_many(MAX_CONNECTIONS).await;
    }
}

/// A connection, plain or not.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    upgrade: Upgrade,
    deadline: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) upgrade: Upgrade,
}

/// Says that a connection became a WebSocket, and may live on.
#[derive(Clone, Debug, Default)]
pub(super) struct Upgrade(Arc<AtomicBool>);

impl Upgrade {
    pub(super) fn done(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_done(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Incoming {
    pub(super) fn new(
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        local_addr: SocketAddr,
    ) -> (Self, Accept) {
        let (sender, ready) = mpsc::channel(64);
        let accept = Accept {
            listener,
            tls,
            ready: sender,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS as usize)),
        };

        (Self { ready, local_addr }, accept)
    }
}

impl Accept {
    pub(super) fn places(&self) -> Places {
        Places(Arc::clone(&self.places))
    }

    /// Accepts until `stop` says so.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut handshakes = JoinSet::new();
        loop {
            let accepted = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&self.places).acquire_owned().await.ok()?;
                Some((self.listener.accept().await, permit))
            };
            let accepted = tokio::select! {
                accepted = accepted => accepted,
                Some(_) = handshakes.join_next() => continue,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Some((Ok((stream, peer)), permit)) => {
                    let (tls, ready) = (self.tls.clone(), self.ready.clone());
                    handshakes.spawn(make_ready(stream, peer, tls, permit, ready));
                }
                Some((Err(error), _)) => {
                    tracing::debug!(%error, "Can't accept a connection");
                    sleep(ACCEPT_AGAIN_AFTER).await;
                }
                None => return,
            }
        }
    }
}

async fn make_ready(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    permit: OwnedSemaphorePermit,
    ready: mpsc::Sender<(Connection, SocketAddr)>,
) {
    // Messages are small and each is waited for.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "Can't turn off Nagle's algorithm");
    }
    let stream = match tls {
        None => Stream::Plain(stream),
        Some(tls) => match timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await {
            Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "A TLS handshake failed");
                return;
            }
            Err(_) => {
                tracing::debug!("A TLS handshake took too long");
                return;
            }
        },
    };
    let connection = Connection {
        stream,
        upgrade: Upgrade::default(),
        deadline: Box::pin(sleep(UPGRADE_WITHIN)),
        _permit: permit,
    };
    // Nobody takes connections any longer when the portal stops.
    let _ = ready.send((connection, peer)).await;
}

impl Listener for Incoming {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            // The end of accepting is told by the shutdown signal, not here.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local_addr)
    }
}

impl Connected<IncomingStream<'_, Incoming>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        Self {
            address: *stream.remote_addr(),
            upgrade: stream.io().upgrade.clone(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let polled = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if polled.is_ready() || this.upgrade.is_done() {
            return polled;
        }

        ready!(this.deadline.as_mut().poll(cx));
        // It may have become one between its last two reads.
        match this.upgrade.is_done() {
            true => Poll::Pending,
            false => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
