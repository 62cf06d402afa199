//! The heads of HTTP answers: to the upgrade, and to a proxy's CONNECT (RFC 9112).

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// The head of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Head {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
}

/// The longest head that is read: what is longer is no answer to us.
const MAX_HEAD: usize = 8 * 1024;

/// The longest body that is read, an explanation of an error, and how long it may take.
const MAX_BODY: usize = 16 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

impl Head {
    /// Reads a head, and not a byte more: what follows belongs to whoever speaks next.
    ///
    /// # Errors
    ///
    /// The stream fails or ends; or what comes is no head of HTTP/1, or a longer one than 8 KiB.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut head = Vec::with_capacity(256);
        while !head.ends_with(b"\n\r\n") && !head.ends_with(b"\n\n") {
            if head.len() == MAX_HEAD {
                return Err(invalid("the answer's head is longer than 8 KiB"));
            }
            head.push(stream.read_u8().await?);
        }

        Self::parse(&head).ok_or_else(|| invalid("the answer is no HTTP/1"))
    }

    fn parse(head: &[u8]) -> Option<Self> {
        // Values may hold any byte above ASCII; none that is of use here does.
        let text = String::from_utf8_lossy(head);
        let mut lines = text.lines();
        let mut first = lines.next()?.split(' ');
        if !first.next()?.starts_with("HTTP/1.") {
            return None;
        }
        let status = first.next()?;
        let is_status = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
        let headers = lines.filter_map(|line| line.split_once(':'));

        Some(Self {
            status: is_status.then(|| status.parse().ok())??,
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect(),
        })
    }

    /// The first header of that name, which is given in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();

        headers
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a header that lists words has this one, in whatever case.
    pub(super) fn lists(&self, name: &str, word: &str) -> bool {
        let mut headers = self.headers.iter().filter(|(header, _)| header == name);

        headers.any(|(_, value)| {
            value
                .split(',')
                .any(|listed| listed.trim().eq_ignore_ascii_case(word))
        })
    }

    /// Reads what explains an error, as far as it comes in time. Where its length isn't said it goes on to the end.
    pub(super) async fn read_body(&self, stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
        let stated = self.header("content-length");
        let stated = stated.and_then(|text| text.parse().ok());
        let length = stated.unwrap_or(MAX_BODY).min(MAX_BODY);
        let mut body = Vec::new();
        let mut rest = stream.take(length as u64);
        // What has come counts, even if there is no more.
        drop(timeout(BODY_TIMEOUT, rest.read_to_end(&mut body)).await);

        body
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn a_head_is_read_and_what_follows_is_left() {
        for newline in ["\r\n", "\n"] {
            let lines = [
                "HTTP/1.1 101 Switching Protocols",
                "Upgrade: WebSocket",
                "connection: keep-alive, Upgrade",
                "X: a:b",
                "",
                "",
            ];
            let text = lines.join(newline);
            let bytes = [text.as_bytes(), b"rest"].concat();
            let mut stream = &bytes[..];

            let head = Head::read(&mut stream).await.unwrap();
            assert_eq!(head.status, 101);
            assert_eq!(head.header("upgrade"), Some("WebSocket"));
            assert_eq!(head.header("x"), Some("a:b"));
            assert_eq!(head.header("y"), None);
            assert!(head.lists("connection", "upgrade"));
            assert!(!head.lists("connection", "close"));
            assert_eq!(stream, b"rest");
        }
    }

    #[tokio::test]
    async fn what_is_no_head_or_too_long_a_one_is_refused() {
        for text in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "\r\n\r\n",
            "HTTP/1.1\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 +20 OK\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        ] {
            let mut stream = text.as_bytes();
            assert!(Head::read(&mut stream).await.is_err(), "{text:?}");
        }

        let long = |length: usize| format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(length));
        let frame = long(0).len();
        assert!(
            Head::read(&mut long(MAX_HEAD - frame).as_bytes())
                .await
                .is_ok()
        );
        assert!(
            Head::read(&mut long(MAX_HEAD - frame + 1).as_bytes())
                .await
                .is_err()
        );
        assert!(Head::read(&mut tokio::io::repeat(b'a')).await.is_err());
    }

    #[tokio::test]
    async fn a_body_is_as_long_as_it_says_and_no_longer_than_is_of_use() {
        for (stated, length) in [
            ("content-length: 3\r\n", 3),
            ("content-length: 99999999999\r\n", MAX_BODY),
            ("content-length: odd\r\n", MAX_BODY),
            ("", MAX_BODY),
        ] {
            let text = format!("HTTP/1.1 503 Busy\r\n{stated}\r\n");
            let head = Head::parse(text.as_bytes()).unwrap();

            assert_eq!(
                head.read_body(&mut tokio::io::repeat(b'a')).await.len(),
                length
            );
            assert!(head.read_body(&mut tokio::io::empty()).await.is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, status in "[ -~]{0,8}", rest in "[ -~\r\n]{0,64}") {
            let _ = Head::parse(&bytes);
            let text = format!("HTTP/1.1 {status}{rest}");
            if let Some(head) = Head::parse(text.as_bytes()) {
                prop_assert!(head.status < 1_000);
            }
        }
    }
}
