//! Asking by TCP once, by a connection that is for nothing else.

use std::io;
use std::net::SocketAddr;

use connlib_wire::dns::is_answer_to;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::dial::connect_any;

/// Connects to a server, asks it and waits for the answer; other messages are passed over (RFC 1035 §4.2.2).
pub(super) async fn ask(
    server: SocketAddr,
    mark: Option<u32>,
    message: &[u8],
) -> io::Result<Vec<u8>> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    let frame = [&len.to_be_bytes(), message].concat();
    let stream = connect_any(&[server], mark).await;
    let mut stream = stream.map_err(io::Error::other)?;
    stream.write_all(&frame).await?;
    loop {
        let len = stream.read_u16().await?;
        let mut answer = vec![0; len.into()];
        stream.read_exact(&mut answer).await?;
        if is_answer_to(message, &answer) {
            return Ok(answer);
        }
    }
}
