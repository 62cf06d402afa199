//! Two questions by HTTP: is it alive, and has it joined the portal (relay.md §17.2)?

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::error::{Error, OsRefused};

/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait after a connection could not be taken: most likely there are too many files open.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Health {
    listener: TcpListener,
}

impl Health {
    pub(super) async fn bind(addr: SocketAddr) -> Result<Self, Error> {
        let listener = TcpListener::bind(addr)
            .await
            .map_err(|source| OsRefused::Health {
                addr,
                source: Arc::new(source),
            })?;

        Ok(Self { listener })
    }

    /// Takes one question; for ever none where nobody listens.
    pub(super) async fn serve(health: &mut Option<Self>, is_ready: bool) {
        let Some(health) = health else {
            return std::future::pending().await;
        };
        match health.listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(async move {
                if let Err(error) = timeout(PATIENCE, answer(stream, is_ready)).await {
                    tracing::debug!(%error, "A health check took too long");
                }
            })),
            Err(error) => {
                tracing::debug!(%error, "A health check can't be taken");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, is_ready: bool) -> std::io::Result<()> {
    let mut request = [0; 1_024];
    let len = stream.read(&mut request).await?;
    let request = String::from_utf8_lossy(request.get(..len).unwrap_or_default());
    let status = match request.split(' ').nth(1) {
        Some("/healthz") => "200 OK",
        Some("/readyz") if is_ready => "200 OK",
        Some("/readyz") => "503 Service Unavailable",
        Some(_) | None => "404 Not Found",
    };
    let response = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");

    stream.write_all(response.as_bytes()).await
}
