//! A TURN server that others run, asked now and then whether it is there.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use connlib_os::random;
use connlib_wire::buffer::Pool;
use connlib_wire::stun::{Builder, Class, Message, Method, TransactionId};
use tokio::net::UdpSocket;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::error::{Error, OsRefused};

/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// How long an answer counts: three questions may be lost.
const COUNTS_FOR: Duration = Duration::from_secs(18);

/// The longest answer to a question for one's own address, in bytes; what is longer isn't read to its end.
const MAX_ANSWER: usize = 1_024;

/// Asks on all its addresses: one that answers is enough.
#[derive(Debug)]
pub(super) struct Elsewhere {
    sockets: Vec<(UdpSocket, TransactionId)>,
    pool: Pool,
    next: Interval,
    answered_at: Option<Instant>,
    is_there: bool,
}

impl Elsewhere {
    /// Opens a socket for each address; asks nothing yet.
    pub(super) async fn new(addresses: &[SocketAddr]) -> Result<Self, Error> {
        let mut sockets = Vec::new();
        for address in addresses {
            let refused = |source| OsRefused::TurnServer {
                addr: *address,
                source: Arc::new(source),
            };
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any).await.map_err(refused)?;
            socket.connect(address).await.map_err(refused)?;
            sockets.push((socket, TransactionId([0; 12])));
        }
        let mut next = interval(ASK_EVERY);
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);

        Ok(Self {
            sockets,
            pool: Pool::new(256, 2),
            next,
            answered_at: None,
            is_there: false,
        })
    }

    /// Waits until it comes or goes, and says which. At first it isn't there.
    ///
    /// Nothing is lost if the wait is given up.
    pub(super) async fn turned(&mut self) -> bool {
        loop {
            tokio::select! {
                _ = self.next.tick() => self.ask().await,
                () = answer(&self.sockets) => self.answered_at = Some(Instant::now()),
            }
            let is_there = (self.answered_at).is_some_and(|at| at.elapsed() < COUNTS_FOR);
            if is_there != self.is_there {
                self.is_there = is_there;
                return is_there;
            }
        }
    }

    async fn ask(&mut self) {
        for (socket, id) in &mut self.sockets {
            let Ok(seed) = random::seed() else {
                return;
            };
            let Some((first, _)) = seed.split_first_chunk() else {
                return;
            };
            *id = TransactionId(*first);
            let buffer = self.pool.take(0);
            let Ok(request) = Builder::new(buffer, Method::Binding, Class::Request, *id).finish()
            else {
                return;
            };
            if let Err(error) = socket.send(&request).await {
                tracing::debug!(%error, "The TURN server can't be asked");
            }
        }
    }
}

/// Waits for an answer to the latest question on any of the sockets.
async fn answer(sockets: &[(UdpSocket, TransactionId)]) {
    let answers = sockets.iter().map(|(socket, id)| {
        Box::pin(async move {
            let mut bytes = [0; MAX_ANSWER];
            loop {
                match socket.recv(&mut bytes).await {
                    Ok(len) if is_answer(bytes.get(..len).unwrap_or_default(), *id) => return,
                    Ok(_) => {}
                    // Nobody listens there now: the next question may be answered.
                    Err(error) => tracing::debug!(%error, "The TURN server can't be heard"),
                }
            }
        })
    });

    futures_util::future::select_all(answers).await;
}

fn is_answer(datagram: &[u8], id: TransactionId) -> bool {
    Message::parse(datagram).is_ok_and(|message| {
        message.class() == Class::Success
            && message.method() == Method::Binding
            && message.transaction_id() == id
            && message.mapped_address().is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_is_there_while_it_answers() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addresses = [silent.local_addr().unwrap(), server.local_addr().unwrap()];
        let mut elsewhere = Elsewhere::new(&addresses).await.unwrap();
        let pool = Pool::new(256, 2);

        let serve = async {
            for number in 0..2 {
                let mut bytes = [0; 256];
                let (len, from) = server.recv_from(&mut bytes).await.unwrap();
                let asked = Message::parse(&bytes[..len]).unwrap();
                // The first answer is to another question.
                let id = match number {
                    0 => TransactionId([9; 12]),
                    _ => asked.transaction_id(),
                };
                let mapped = connlib_wire::stun::Attribute::XorMappedAddress(from);
                let answer = Builder::new(pool.take(0), Method::Binding, Class::Success, id)
                    .attribute(mapped)
                    .finish()
                    .unwrap();
                server.send_to(&answer, from).await.unwrap();
            }
        };
        let began_at = Instant::now();
        tokio::time::pause();
        let (is_there, ()) = tokio::join!(elsewhere.turned(), serve);

        assert!(is_there);
        assert!(began_at.elapsed() >= ASK_EVERY, "the wrong answer counted");
        drop(server);
        assert!(!elsewhere.turned().await);
        assert!(began_at.elapsed() < ASK_EVERY + COUNTS_FOR + ASK_EVERY);
    }
}
