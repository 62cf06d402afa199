//! A peer's connection to the portal: join, heartbeats, messages.

use std::time::Duration;

use connlib_os::random;
use connlib_wire::key::PublicKey;
use connlib_wire::portal::Empty;
use connlib_wire::portal::phoenix::{self, Control, Envelope};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, interval_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::portal::Contact;

/// As any peer does (portal-protocol.md §3.2).
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    topic: &'static str,
    reference: u64,
    heartbeat: Interval,
}

/// Something that the portal said.
pub(crate) struct Heard {
    pub(crate) event: String,
    pub(crate) payload: Box<RawValue>,
}

impl Socket {
    /// Connects and asks to join; `None` if the portal isn't there, or doesn't want us.
    pub(crate) async fn open(
        contact: &Contact,
        topic: &'static str,
        token: &str,
        id: &str,
    ) -> Option<Self> {
        let key = PublicKey(random::seed().unwrap()).to_string();
        let key = (key.replace('+', "%2B").replace('/', "%2F")).replace('=', "%3D");
        let addr = contact.addr;
        let url =
            format!("ws://{addr}/{topic}/v2/websocket?external_id={id}&name={id}&public_key={key}");
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        let token = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert("x-authorization", token);
        let product = match topic {
            "client" => "Linux/6 headless-client/1.5.12",
            _ => "Linux/6 gateway/1.6.1",
        };
        headers.insert("user-agent", HeaderValue::from_static(product));
        let tcp = TcpStream::connect(addr).await.ok()?;
        let (stream, _) = client_async(request, tcp).await.ok()?;

        let mut heartbeat = interval_at(
            tokio::time::Instant::now() + HEARTBEAT_EVERY,
            HEARTBEAT_EVERY,
        );
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut socket = Self {
            stream,
            topic,
            reference: 0,
            heartbeat,
        };
        socket.say(phoenix::JOIN, &Empty {}).await?;

        Some(socket)
    }

    pub(crate) async fn say(&mut self, event: &str, payload: &impl Serialize) -> Option<()> {
        let text = phoenix::push(self.topic, event, payload, Some(self.reference));
        self.reference += 1;

        self.stream.send(Message::text(text)).await.ok()
    }

    /// What the portal says next, but for answers; `None` once the connection has ended. Gives up no message when it is dropped.
    pub(crate) async fn hear(&mut self) -> Option<Heard> {
        loop {
            tokio::select! {
                _ = self.heartbeat.tick() => {
                    let text = phoenix::heartbeat(self.reference);
                    self.reference += 1;
                    self.stream.send(Message::text(text)).await.ok()?;
                }
                message = self.stream.next() => {
                    let Message::Text(text) = message?.ok()? else {
                        continue;
                    };
                    let envelope = Envelope::parse(&text).unwrap();
                    if Control::parse(&envelope).is_none() {
                        let payload = envelope.payload().to_owned();
                        return Some(Heard { event: envelope.event, payload });
                    }
                }
            }
        }
    }
}
