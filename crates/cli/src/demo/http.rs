//! The little of HTTP/1.1 that the demo needs: one GET for a connection.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, run_in};
use sha2::{Digest, Sha256};

use super::body::{self, Hash};
use crate::exit::{Exit, Failure};

/// The largest body that is served, in MiB: a terabyte.
const MAX_MIB: u64 = 1 << 20;

/// Neither end waits longer for the other one.
const PATIENCE: Duration = Duration::from_secs(20);

/// Lines of a header that are read; both ends are ours or somebody's curl.
const MAX_LINES: usize = 100;

/// The longest line of a header that is read.
const MAX_LINE: u64 = 8 * 1024;

/// Serves `/N`, a body of N MiB, inside `namespace` until this process ends.
///
/// # Errors
///
/// Exit 5: the address can't be listened on.
pub(super) fn serve(namespace: &Namespace, address: SocketAddr) -> Result<(), Failure> {
    let refused =
        |error: &io::Error| Failure::os(format_args!("listen on {address} for HTTP"), error);
    let listener =
        run_in(namespace, || TcpListener::bind(address))?.map_err(|error| refused(&error))?;

    // The sockets stay in their namespace, wherever the threads are.
    let accept = move || {
        for stream in listener.incoming().flatten() {
            // A client that gives up is no concern of ours.
            let _ = thread::Builder::new()
                .name("resource".into())
                .spawn(move || answer(&stream));
        }
    };
    thread::Builder::new()
        .name("resource".into())
        .spawn(accept)
        .map(drop)
        .map_err(|error| refused(&error))
}

/// What a fetch has found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetched {
    pub(super) bytes: u64,
    pub(super) hash: Hash,
    /// From the first byte of the answer to the last.
    pub(super) took: Duration,
}

impl Fetched {
    /// Payload bits per second.
    pub(super) fn bps(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.took.as_secs_f64().max(f64::EPSILON)
    }
}

/// Fetches `http://address/path` from inside `namespace`.
///
/// # Errors
///
/// Exit 1: there is no whole answer. Exit 5: the namespace can't be entered.
pub(super) fn fetch(
    namespace: &Namespace,
    address: SocketAddr,
    path: &str,
) -> Result<Fetched, Failure> {
    let stream = run_in(namespace, || TcpStream::connect_timeout(&address, PATIENCE))?;

    stream
        .and_then(|stream| download(&stream, address, path))
        .map_err(|error| {
            Failure::new(
                Exit::Failed,
                format_args!("can't fetch http://{address}{path} through the tunnel: {error}"),
            )
        })
}

fn answer(stream: &TcpStream) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = Lines::of(stream);
    let request = lines.next()?;
    while !lines.next()?.is_empty() {}

    let mut stream = BufWriter::with_capacity(64 * 1024, stream);
    let Some(mib) = wanted(&request) else {
        stream.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )?;
        return stream.flush();
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        mib * body::MIB
    )?;
    body::write(mib, &mut stream)?;

    stream.flush()
}

/// How many MiB a request is for: `GET /64 HTTP/1.1`.
fn wanted(request: &str) -> Option<u64> {
    let path = request.strip_prefix("GET /")?.split(' ').next()?;

    path.parse().ok().filter(|mib| (1..=MAX_MIB).contains(mib))
}

fn download(mut stream: &TcpStream, address: SocketAddr, path: &str) -> io::Result<Fetched> {
    let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;

    let clock = Clock::new();
    let mut lines = Lines::of(stream);
    let status = lines.next()?;
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(odd(&format!("the server answers {status:?}")));
    }
    let started_at = clock.now();
    let mut len = None;
    loop {
        let line = lines.next()?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            len = value.parse().ok();
        }
    }
    let len: u64 = len.ok_or_else(|| odd("the server doesn't say how long its answer is"))?;

    let mut body = lines.reader.take(len);
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut buf = vec![0; 256 * 1024];
    loop {
        let read = body.read(&mut buf)?;
        let Some(part) = buf.get(..read).filter(|part| !part.is_empty()) else {
            break;
        };
        hash.update(part);
        bytes += read as u64;
    }

    Ok(Fetched {
        bytes,
        hash: hash.finalize().into(),
        took: clock.now() - started_at,
    })
}

/// The lines of a header.
struct Lines<'a> {
    reader: BufReader<&'a TcpStream>,
    left: usize,
}

impl<'a> Lines<'a> {
    fn of(stream: &'a TcpStream) -> Self {
        Self {
            reader: BufReader::with_capacity(64 * 1024, stream),
            left: MAX_LINES,
        }
    }

    /// The next line without its end; empty at the end of the header.
    fn next(&mut self) -> io::Result<String> {
        let mut line = String::new();
        let read = (&mut self.reader).take(MAX_LINE).read_line(&mut line)?;
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the header has no end"))?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }

        Ok(line.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sizes_are_served() {
        assert_eq!(wanted("GET /64 HTTP/1.1"), Some(64));
        for request in [
            "GET / HTTP/1.1",
            "GET /0 HTTP/1.1",
            "GET /-1 HTTP/1.1",
            "GET /99999999 HTTP/1.1",
            "POST /64 HTTP/1.1",
            "",
        ] {
            assert_eq!(wanted(request), None, "{request}");
        }
    }

    #[test]
    fn what_is_served_is_fetched_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(&stream);
            }
        });
        let get = |path: &str| {
            let stream = TcpStream::connect(address).unwrap();
            download(&stream, address, path)
        };

        let fetched = get("/2").unwrap();
        assert_eq!(fetched.bytes, 2 << 20);
        assert_eq!(fetched.hash, body::hash(2));
        assert!(fetched.bps() > 0.0);
        assert!(get("/nothing").unwrap_err().to_string().contains("404"));
    }
}
