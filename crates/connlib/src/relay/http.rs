//! Questions by HTTP: is it alive, does it serve whoever the portal sends (relay.md §17.2); and at an address of their own, for
//! they are nobody else's business, what has it counted?

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::metrics;
use crate::data_plane::Counters;
use crate::error::{Error, OsRefused};

/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait after a connection could not be taken: most likely there are too many files open.
const PAUSE: Duration = Duration::from_millis(100);

/// Where one kind of question is answered.
pub(super) struct Http {
    listener: TcpListener,
    kind: Kind,
}

/// Which questions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// `/healthz` and `/readyz`.
    Health,
    /// `/metrics`.
    Metrics,
}

/// What there is to tell.
pub(super) struct Vitals {
    /// Who comes now is served.
    pub(super) is_ready: bool,
    /// The portal knows it.
    pub(super) is_joined: bool,
    /// Where its counters are, if it serves anybody itself.
    pub(super) counters: Option<Counters>,
}

impl Http {
    pub(super) async fn bind(addr: SocketAddr, kind: Kind) -> Result<Self, Error> {
        let listener = TcpListener::bind(addr)
            .await
            .map_err(|source| OsRefused::Health {
                addr,
                source: Arc::new(source),
            })?;

        Ok(Self { listener, kind })
    }

    /// Takes one question; for ever none where nobody listens.
    pub(super) async fn serve(http: &mut Option<Self>, vitals: Vitals) {
        let Some(Self { listener, kind }) = http else {
            return std::future::pending().await;
        };
        let kind = *kind;
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(async move {
                if let Err(error) = timeout(PATIENCE, answer(stream, kind, vitals)).await {
                    tracing::debug!(%error, "A client took too long to ask");
                }
            })),
            Err(error) => {
                tracing::debug!(%error, "A connection can't be taken");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, kind: Kind, vitals: Vitals) -> std::io::Result<()> {
    let mut request = [0; 1_024];
    let len = stream.read(&mut request).await?;
    let request = String::from_utf8_lossy(request.get(..len).unwrap_or_default());
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match (kind, path) {
        (Kind::Health, "/healthz") => ("200 OK", String::new()),
        (Kind::Health, "/readyz") if vitals.is_ready => ("200 OK", String::new()),
        (Kind::Health, "/readyz") => ("503 Service Unavailable", String::new()),
        (Kind::Metrics, "/metrics") => {
            let counts = match &vitals.counters {
                Some(counters) => Some(counters.read().await),
                None => None,
            };
            let text = metrics::text(vitals.is_joined, vitals.is_ready, counts);
            ("200 OK", text)
        }
        (Kind::Health | Kind::Metrics, _) => ("404 Not Found", String::new()),
    };
    let content_type = match body.is_empty() {
        true => String::new(),
        false => format!("content-type: {}\r\n", metrics::CONTENT_TYPE),
    };
    let response = format!(
        "HTTP/1.1 {status}\r\n{content_type}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );

    stream.write_all(response.as_bytes()).await
}
