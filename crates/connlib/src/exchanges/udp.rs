//! Exchanges of one datagram each way.
//!
//! A socket is connected, so that the kernel takes datagrams from its server alone and tells of refusals, and its port is
//! one that the kernel draws. Using it a few times saves opening one for each query, and is not long enough to find the
//! port out (RFC 5452 §9.2).

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connlib_tunnel::dns::ExchangeError;
use connlib_wire::dns::{MAX_MESSAGE, is_answer_to};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep};

use super::{Outcome, lock};
use crate::dial::DialError;

/// Sockets that are in use, and those that wait to be used again.
pub(super) struct Sockets {
    mark: Option<u32>,
    /// The right to have a socket.
    rights: Semaphore,
    idle: Mutex<Idle>,
    /// Where datagrams arrive: a look at each is short and never waits.
    buffer: Mutex<Box<[u8]>>,
}

#[derive(Default)]
struct Idle {
    /// The longest idle one first.
    sockets: VecDeque<Socket>,
    /// Whether somebody closes those that get too old.
    is_swept: bool,
}

struct Socket {
    server: SocketAddr,
    socket: UdpSocket,
    opened_at: Instant,
    uses: u32,
}

/// How many sockets may be open.
const MAX_SOCKETS: usize = 512;

/// How often a socket is used.
const MAX_USES: u32 = 16;

/// How long after its opening a socket is used.
const MAX_AGE: Duration = Duration::from_secs(10);

impl Sockets {
    pub(super) fn new(mark: Option<u32>) -> Self {
        Self {
            mark,
            rights: Semaphore::new(MAX_SOCKETS),
            idle: Mutex::default(),
            buffer: Mutex::new(vec![0; MAX_MESSAGE].into()),
        }
    }

    /// Sends a message and waits for its answer, for ever if need be.
    pub(super) async fn ask(self: &Arc<Self>, server: SocketAddr, message: &[u8]) -> Outcome {
        let Ok(_right) = self.rights.acquire().await else {
            return Err(ExchangeError::Busy);
        };
        let unreachable =
            |error: io::Error| ExchangeError::Unreachable(format!("{server}: {error}"));
        let mut socket = match self.take(server) {
            Some(socket) => socket,
            None => self.open(server)?,
        };

        socket.uses += 1;
        let answer = self.converse(&socket.socket, message).await;
        let answer = answer.map_err(unreachable)?;
        self.put_back(socket);

        Ok(answer)
    }

    /// Closes what nobody uses.
    pub(super) fn reset(&self) {
        lock(&self.idle).sockets.clear();
    }

    async fn converse(&self, socket: &UdpSocket, message: &[u8]) -> io::Result<Vec<u8>> {
        socket.send(message).await?;
        loop {
            let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
            if ready.is_error() {
                refusal(socket)?;
            }
            if let Some(answer) = self.look(socket, message)? {
                return Ok(answer);
            }
            // Somebody who floods us must not keep the others from their turns.
            consume_budget().await;
        }
    }

    /// Takes one datagram, if there is any, and returns it if it is the answer.
    fn look(&self, socket: &UdpSocket, message: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = lock(&self.buffer);
        let len = match socket.try_recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let datagram = buffer.get(..len).unwrap_or_default();
        if !is_answer_to(message, datagram) {
            tracing::trace!(len, "Ignored a datagram that is no answer");
            return Ok(None);
        }

        Ok(Some(datagram.to_vec()))
    }

    fn take(&self, server: SocketAddr) -> Option<Socket> {
        let now = Instant::now();
        let sockets = &mut lock(&self.idle).sockets;
        sockets.retain(|socket| !socket.is_old(now));
        let position = sockets.iter().rposition(|socket| socket.server == server)?;

        sockets.remove(position)
    }

    fn put_back(self: &Arc<Self>, socket: Socket) {
        if socket.uses >= MAX_USES || socket.is_old(Instant::now()) {
            return;
        }
        let mut idle = lock(&self.idle);
        idle.sockets.push_back(socket);
        if idle.is_swept {
            return;
        }

        idle.is_swept = true;
        let sockets = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                sleep(MAX_AGE).await;
                if sockets.upgrade().is_none_or(|sockets| !sockets.sweep()) {
                    return;
                }
            }
        });
    }

    /// Closes sockets that are too old; says whether there are others.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut idle = lock(&self.idle);
        idle.sockets.retain(|socket| !socket.is_old(now));
        idle.is_swept = !idle.sockets.is_empty();

        idle.is_swept
    }

    fn open(&self, server: SocketAddr) -> Result<Socket, ExchangeError> {
        // Those in use, this one among them, and the idle ones have to fit together.
        let idle_at_most = self.rights.available_permits();
        let sockets = &mut lock(&self.idle).sockets;
        while sockets.len() > idle_at_most {
            sockets.pop_front();
        }

        let socket = connected(server, self.mark).map_err(|error| {
            ExchangeError::Unreachable(match error {
                OpenError::Mark(error) => error.to_string(),
                OpenError::Io(error) => format!("{server}: {error}"),
            })
        })?;

        Ok(Socket {
            server,
            socket,
            opened_at: Instant::now(),
            uses: 0,
        })
    }
}

impl Socket {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.opened_at) >= MAX_AGE
    }
}

/// Takes the error that an ICMP message left on a socket: what makes it readable is datagrams alone.
fn refusal(socket: &UdpSocket) -> io::Result<()> {
    let none = || Err(io::ErrorKind::WouldBlock.into());
    let taken = socket.try_io(Interest::ERROR, || {
        socket.take_error()?.map_or_else(none, Err)
    });

    match taken {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

enum OpenError {
    Mark(DialError),
    Io(io::Error),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn connected(server: SocketAddr, mark: Option<u32>) -> Result<UdpSocket, OpenError> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark).map_err(|source| {
            let source = Arc::new(source);
            OpenError::Mark(DialError::Mark { mark, source })
        })?;
    }
    socket.connect(server)?;
    socket.set_nonblocking(true)?;

    Ok(UdpSocket::from_std(socket)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_carry_the_mark_or_the_error_says_so() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let sockets = Sockets::new(Some(0x77));
        match sockets.open(server.local_addr().unwrap()) {
            Ok(socket) => assert_eq!(SockRef::from(&socket.socket).mark().unwrap(), 0x77),
            Err(error) => assert!(error.to_string().contains("0x77"), "{error}"),
        }
    }

    #[tokio::test]
    async fn idle_sockets_make_room_for_those_in_use() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = server.local_addr().unwrap();
        let sockets = Arc::new(Sockets::new(None));
        for _ in 0..=MAX_SOCKETS {
            let _right = sockets.rights.acquire().await.unwrap();
            sockets.put_back(sockets.open(server).unwrap());
        }

        assert_eq!(lock(&sockets.idle).sockets.len(), MAX_SOCKETS);
        let _rights = sockets.rights.acquire_many(10).await.unwrap();
        let _socket = sockets.open(server).unwrap();
        assert_eq!(lock(&sockets.idle).sockets.len(), MAX_SOCKETS - 10);
    }

    #[tokio::test(start_paused = true)]
    async fn sockets_that_are_too_old_are_closed_though_nobody_asks() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let sockets = Arc::new(Sockets::new(None));
        sockets.put_back(sockets.open(server.local_addr().unwrap()).unwrap());
        assert_eq!(lock(&sockets.idle).sockets.len(), 1);

        sleep(MAX_AGE + Duration::from_millis(1)).await;

        let idle = lock(&sockets.idle);
        assert!(idle.sockets.is_empty() && !idle.is_swept);
    }
}
