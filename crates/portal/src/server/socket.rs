//! One WebSocket: texts in, texts out.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use tokio::time::timeout;

use super::core::{CoreHandle, Opened, Outgoing};

/// How long a message may take to be written before the peer counts as gone.
const WRITE_WITHIN: Duration = Duration::from_secs(15);

/// How long a peer may take to answer a close frame.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Serves `websocket` until either side ends it, then reports its end.
pub(super) async fn serve(mut websocket: WebSocket, opened: Opened, core: CoreHandle) {
    let Opened {
        socket,
        mut outgoing,
    } = opened;

    loop {
        tokio::select! {
            message = outgoing.recv() => match message {
                Some(Outgoing::Text(text)) => {
                    if !send(&mut websocket, Message::Text(text.into())).await {
                        break;
                    }
                }
                Some(Outgoing::Ping) => {
                    if !send(&mut websocket, Message::Ping(Bytes::new())).await {
                        break;
                    }
                }
                Some(Outgoing::Close { code, reason }) => {
                    let frame = CloseFrame { code, reason: reason.into() };
                    if send(&mut websocket, Message::Close(Some(frame))).await {
                        wait_for_close(&mut websocket).await;
                    }
                    break;
                }
                None => break,
            },
            message = websocket.recv() => match message {
                Some(Ok(Message::Text(text))) => core.message(socket, text.to_string()).await,
                Some(Ok(Message::Binary(_))) => tracing::debug!(?socket, "Ignoring a binary message"),
                // Pings are answered below us.
                Some(Ok(Message::Ping(_))) => {}
                Some(Ok(Message::Pong(_))) => core.pong(socket).await,
                Some(Ok(Message::Close(_))) | None => break,
                Some(Err(error)) => {
                    tracing::debug!(?socket, %error, "The connection broke");
                    break;
                }
            },
        }
    }

    core.disconnected(socket).await;
}

async fn send(websocket: &mut WebSocket, message: Message) -> bool {
    matches!(
        timeout(WRITE_WITHIN, websocket.send(message)).await,
        Ok(Ok(()))
    )
}

/// Reads until the peer closed too, so that it gets our frame before TCP ends.
async fn wait_for_close(websocket: &mut WebSocket) {
    let closed = async { while let Some(Ok(_)) = websocket.recv().await {} };
    if timeout(CLOSE_WITHIN, closed).await.is_err() {
        tracing::debug!("The peer did not answer a close frame");
    }
}
