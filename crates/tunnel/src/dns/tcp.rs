//! TCP for DNS messages, without the kernel: both ends of connections whose packets are at hand (RFC 7766).

mod client;
mod server;
mod stack;

pub(crate) use client::TcpClient;
pub(crate) use server::{ConnectionId, TcpServer};

/// Messages in a stream, each behind its length in two bytes (RFC 1035 §4.2.2).
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message.
    fn next(&mut self) -> Option<Vec<u8>> {
        let (len, rest) = self.bytes.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_be_bytes(*len));
        let message = rest.get(..len)?.to_vec();
        self.bytes.drain(..len + 2);

        Some(message)
    }
}

/// A message behind its length; `None` if it is longer than a frame can be.
fn framed(message: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(message.len()).ok()?;
    let mut frame = Vec::with_capacity(message.len() + 2);
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(message);

    Some(frame)
}

#[cfg(test)]
mod tests;
