//! Questions by HTTP: is it alive, does it serve whoever the portal sends (relay.md §17.2); and at an address of their own, for
//! they are nobody else's business, what has it counted?

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
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
                match timeout(PATIENCE, answer(stream, kind, vitals)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "A question by HTTP failed"),
                    Err(_) => tracing::debug!("A client took too long to ask by HTTP"),
                }
            })),
            Err(error) => {
                tracing::debug!(%error, "A connection can't be taken");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, kind: Kind, vitals: Vitals) -> hyper::Result<()> {
    let respond = service_fn(|request| respond(request, kind, &vitals));

    // What there is to tell is told once.
    http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), respond)
        .await
}

async fn respond(
    request: Request<Incoming>,
    kind: Kind,
    vitals: &Vitals,
) -> hyper::http::Result<Response<String>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let status = match (kind, request.uri().path()) {
        (Kind::Health, "/healthz" | "/readyz") | (Kind::Metrics, "/metrics") if !is_read => {
            let refusal = Response::builder().status(StatusCode::METHOD_NOT_ALLOWED);
            return refusal.header(ALLOW, "GET, HEAD").body(String::new());
        }
        (Kind::Metrics, "/metrics") => {
            let counts = match &vitals.counters {
                Some(counters) => Some(counters.read().await),
                None => None,
            };
            let text = metrics::text(vitals.is_joined, vitals.is_ready, counts);
            let answer = Response::builder().header(CONTENT_TYPE, metrics::CONTENT_TYPE);
            return answer.body(text);
        }
        (Kind::Health, "/healthz") => StatusCode::OK,
        (Kind::Health, "/readyz") if vitals.is_ready => StatusCode::OK,
        (Kind::Health, "/readyz") => StatusCode::SERVICE_UNAVAILABLE,
        (Kind::Health | Kind::Metrics, _) => StatusCode::NOT_FOUND,
    };

    Response::builder().status(status).body(String::new())
}
