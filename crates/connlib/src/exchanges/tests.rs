//! Exchanges with servers of a few lines, on real sockets.

mod authority;
pub(crate) mod bootstrap;
mod https;
mod limits;
mod real;
mod tcp;
mod tls;
mod udp;

use std::net::{Ipv4Addr, SocketAddr};

use connlib_wire::dns::{Answer, Data, Name, Query, Rcode, RecordType, respond};
use tokio::time::timeout;

use super::*;

const ANY: &str = "127.0.0.1:0";

/// Far longer than any of this takes.
const LONG: Duration = Duration::from_secs(20);

/// Enough for what is on its way to arrive, and for what must not come to show itself.
const SHORT: Duration = Duration::from_millis(60);

/// The edge, and what a test wants of it.
struct Rig {
    exchanges: Exchanges,
}

impl Rig {
    fn new() -> Self {
        Self::trusting(None)
    }

    fn trusting(ca_file: Option<&Path>) -> Self {
        Self {
            exchanges: Exchanges::new(None, ca_file).unwrap(),
        }
    }

    fn start(&mut self, id: u64, server: &Server, carrier: Carrier, message: Vec<u8>) {
        self.start_within(id, server, carrier, message, LONG);
    }

    fn start_within(
        &mut self,
        id: u64,
        server: &Server,
        carrier: Carrier,
        message: Vec<u8>,
        within: Duration,
    ) {
        self.exchanges.start(Exchange {
            id: ExchangeId(id),
            server: server.clone(),
            carrier,
            message,
            within,
        });
    }

    async fn over(&mut self) -> (u64, Outcome) {
        let (ExchangeId(id), outcome) = timeout(LONG * 2, self.exchanges.next()).await.unwrap();

        (id, outcome)
    }

    /// Asks for a name and waits for what comes of it.
    async fn ask(&mut self, server: &Server, carrier: Carrier, name: &str) -> Outcome {
        self.ask_within(server, carrier, name, LONG).await
    }

    async fn ask_within(
        &mut self,
        server: &Server,
        carrier: Carrier,
        name: &str,
        within: Duration,
    ) -> Outcome {
        let query = query(0x4711, name);
        self.start_within(7, server, carrier, query, within);
        let (id, outcome) = self.over().await;
        assert_eq!(id, 7);

        outcome
    }
}

fn query(id: u16, name: &str) -> Vec<u8> {
    Query::new(&Name::parse(name).unwrap(), RecordType::A).to_upstream(id, false)
}

/// An answer to any query: one address.
fn answer(query: &[u8]) -> Vec<u8> {
    let query = Query::parse(query).unwrap();
    let address = Data::A(Ipv4Addr::new(192, 0, 2, 1));

    respond(&query, Rcode::NOERROR, 60, &[address], None)
}

/// Checks that an outcome is the answer to [`query`].
#[track_caller]
fn assert_answers(outcome: Outcome, id: u16, name: &str) {
    let bytes = outcome.unwrap();
    let asked = Query::parse(&query(id, name)).unwrap();

    assert!(Answer::parse(bytes).unwrap().answers(&asked, id));
}

#[track_caller]
fn assert_unreachable(outcome: &Outcome, subject: &str) {
    assert!(
        matches!(outcome, Err(ExchangeError::Unreachable(cause)) if cause.contains(subject)),
        "{outcome:?} is about {subject}"
    );
}

#[track_caller]
fn assert_failed(outcome: &Outcome, subject: &str) {
    assert!(
        matches!(outcome, Err(ExchangeError::Failed(cause)) if cause.contains(subject)),
        "{outcome:?} is about {subject}"
    );
}

/// Lets time pass that nobody has to wait for.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
