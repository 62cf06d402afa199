//! The portal's heartbeat: how long it waits for its answer while everything else is busy.
//!
//! A role says its own every ten seconds, too seldom for a p99. Here a connection of its own says them as a sparse flow, from
//! where a client is and the way a client does (TLS, WebSocket, envelope); the portal answers it without a join.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use connlib_os::namespace::{Namespace, run_in};
use connlib_wire::portal::phoenix::{self, Control, Envelope, HEARTBEAT_TOPIC};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};
use url::Url;

use super::load::lead_of;
use super::sparse::{Way, exchange};
use super::standing::Standing;
use super::stats::RoundTrips;
use crate::exit::{Exit, Failure};
use crate::rig::broken;
use crate::rig::plan::{PORTAL, Place};

/// What opens the portal's door to a client.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    pub(super) token: String,
    /// The authority of the portal's certificate.
    pub(super) ca: PathBuf,
}

/// A connection that says heartbeats.
struct Heartbeats<S> {
    socket: WebSocket<S>,
    /// What is below `socket`.
    tcp: TcpStream,
}

type Secured = StreamOwned<ClientConnection, TcpStream>;

/// How long the portal may take to take a connection, and each step of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the portal knows this connection by: a device of its own, so that it takes nobody's place.
const EXTERNAL_ID: &str = "bench-heartbeat";

/// A device has a key. Nobody ever links to this one, which never joins.
const PUBLIC_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// The header that a token comes in (portal-protocol.md §1.3).
const AUTHORIZATION: &str = "x-authorization";

impl Standing<'_> {
    /// Says heartbeats from `place` during the middle of a load that takes so long; `None` if there is no portal.
    ///
    /// # Errors
    ///
    /// Exit 1: the portal doesn't take the connection, or ends it.
    pub(super) async fn heartbeats(
        &self,
        place: Place,
        load: Duration,
    ) -> Result<Option<RoundTrips>, Failure> {
        let Some(admission) = self.admission(place)? else {
            return Ok(None);
        };
        let lead = lead_of(load);
        let network = Arc::clone(&self.network);
        let opening = spawn_blocking(move || open(network.namespace(place)?, &admission));
        let mut heartbeats = opening.await.map_err(broken)??;
        sleep(lead).await;

        let saying = spawn_blocking(move || exchange(&mut heartbeats, load - 2 * lead));
        let trips = saying.await.map_err(broken)?.map_err(failed)?;
        Ok(Some(trips))
    }
}

fn failed(problem: impl std::fmt::Display) -> Failure {
    Failure::new(
        Exit::Failed,
        format_args!(
            "no heartbeats with the portal at {PORTAL}: {problem}; see the logs with --verbose"
        ),
    )
}

/// Opens a connection from `namespace`. It blocks.
fn open(namespace: &Namespace, admission: &Admission) -> Result<Heartbeats<Secured>, Failure> {
    let connect = || {
        let tcp = TcpStream::connect_timeout(&PORTAL, PATIENCE)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        Ok::<_, io::Error>((tcp.try_clone()?, tcp))
    };
    let (tcp, below) = run_in(namespace, connect)?.map_err(failed)?;
    let name = ServerName::from(PORTAL.ip());
    let tls = ClientConnection::new(Arc::new(trusting(&admission.ca)?), name).map_err(failed)?;
    let (socket, _) = tungstenite::client(request(&admission.token)?, StreamOwned::new(tls, below))
        .map_err(failed)?;

    Ok(Heartbeats { socket, tcp })
}

/// Trusts the authority in that file, and no other.
fn trusting(ca: &Path) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(ca).map_err(failed)?;
    roots.add(certificate).map_err(failed)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?;

    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn request(token: &str) -> Result<tungstenite::handshake::client::Request, Failure> {
    let mut url: Url = format!("wss://{PORTAL}/client/v2/websocket")
        .parse()
        .map_err(failed)?;
    url.query_pairs_mut()
        .append_pair("external_id", EXTERNAL_ID)
        .append_pair("name", EXTERNAL_ID)
        .append_pair("public_key", PUBLIC_KEY);
    let mut request = url.as_str().into_client_request().map_err(failed)?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(failed)?;
    value.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, value);

    Ok(request)
}

impl<S: Read + Write> Way for Heartbeats<S> {
    fn ask(&mut self, number: u32) -> io::Result<()> {
        let text = phoenix::heartbeat(number.into());

        self.socket.send(Message::text(text)).map_err(into_io)
    }

    fn next_answer(&mut self, within: Duration) -> io::Result<Option<usize>> {
        self.tcp.set_read_timeout(Some(within))?;
        match self.socket.read().map_err(into_io) {
            Ok(Message::Text(text)) => Ok(number_in(&text)),
            Ok(
                Message::Binary(_)
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::Close(_)
                | Message::Frame(_),
            ) => Ok(None),
            // What has come of a message is kept.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The number of the heartbeat that this is the answer to.
fn number_in(text: &str) -> Option<usize> {
    let envelope = Envelope::parse(text).ok()?;
    let is_heartbeat = envelope.topic == HEARTBEAT_TOPIC;
    match Control::parse(&envelope) {
        Some(Control::Ok { reference }) if is_heartbeat => usize::try_from(reference).ok(),
        _ => None,
    }
}

fn into_io(error: tungstenite::Error) -> io::Error {
    if let tungstenite::Error::Io(error) = error {
        return error;
    }

    io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;

    /// A connection to a portal that answers as `answer` says, until it says nothing.
    fn heartbeats(
        answer: impl Fn(u64) -> Option<Vec<String>> + Send + 'static,
    ) -> Heartbeats<TcpStream> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut socket = tungstenite::accept(stream).unwrap();
            while let Ok(Message::Text(text)) = socket.read() {
                let reference = Envelope::parse(&text).unwrap().reference.unwrap();
                let Some(texts) = answer(reference.number().unwrap()) else {
                    return;
                };
                for text in texts {
                    socket.send(Message::text(text)).unwrap();
                }
            }
        });
        let (socket, _) = tungstenite::client("ws://portal/", tcp.try_clone().unwrap()).unwrap();

        Heartbeats { socket, tcp }
    }

    #[test]
    fn what_is_answered_is_timed_and_what_is_not_is_lost() {
        let mut way = heartbeats(|number| {
            let reply = phoenix::reply_ok(HEARTBEAT_TOPIC, Some(number));
            Some(match number {
                2 => Vec::new(),
                3 => vec![phoenix::reply_ok("client", Some(2)), reply.clone(), reply],
                _ => vec![reply],
            })
        });

        let trips = exchange(&mut way, Duration::from_millis(100)).unwrap();
        assert_eq!((trips.sent, trips.millis.len()), (5, 4));
    }

    #[test]
    fn a_connection_that_ends_is_no_silence() {
        let mut way = heartbeats(|_| None);

        assert!(exchange(&mut way, Duration::from_millis(100)).is_err());
    }

    #[test]
    fn an_answer_names_its_heartbeat() {
        for (text, number) in [
            (phoenix::reply_ok(HEARTBEAT_TOPIC, Some(7)), Some(7)),
            (phoenix::reply_ok(HEARTBEAT_TOPIC, None), None),
            (phoenix::reply_ok("client", Some(7)), None),
            (phoenix::reply_error(HEARTBEAT_TOPIC, Some(7), "no"), None),
            (phoenix::heartbeat(7), None),
            ("7".into(), None),
        ] {
            assert_eq!(number_in(&text), number, "{text}");
        }
    }

    #[test]
    fn the_token_is_in_no_address() {
        let request = request("secret").unwrap();

        assert!(!request.uri().to_string().contains("secret"));
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer secret");
        assert!(!format!("{request:?}").contains("secret"));
    }
}
