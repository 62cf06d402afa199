//! What portals and peers that nobody here wrote have said to each other, with ours in the peer's place.

use connlib_wire::portal::client::GatewayCandidates;
use connlib_wire::portal::{Generation, gateway};
use serde::Deserialize;

use super::*;

/// A line of a recording.
#[derive(Deserialize)]
struct Line<'a> {
    dir: &'a str,
    conn: u32,
    #[serde(default, borrow)]
    request: Option<Recorded<'a>>,
    #[serde(default, borrow)]
    msg: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Recorded<'a> {
    #[serde(borrow)]
    line: &'a str,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a str)>,
}

macro_rules! recording {
    ($name:literal) => {
        include_str!(concat!("../../../../wire/tests/vectors/", $name, ".jsonl"))
    };
}

#[tokio::test]
async fn a_client_says_what_others_have_said() {
    for (generation, recording) in [
        (Generation::V1, recording!("sep2025-client")),
        (Generation::V2, recording!("aug2026-client")),
    ] {
        let said = play::<OfClient>(generation, recording, |event, payload| {
            let said = ToPortal::parse(event, payload).unwrap();
            // What ours says by itself, before it is written in the portal's words.
            if let ToPortal::BroadcastIceCandidates(of) = said {
                return ToPortal::NewIceCandidates(GatewayCandidates {
                    gateway_id: of.gateway_ids[0],
                    candidates: of.candidates,
                });
            }
            said
        })
        .await;
        assert!(said > 2, "{generation:?}: {said}");
    }
}

#[tokio::test]
async fn a_gateway_says_what_others_have_said() {
    for (generation, recording) in [
        (Generation::V1, recording!("sep2025-gateway")),
        (Generation::V2, recording!("aug2026-gateway")),
    ] {
        let said = play::<OfGateway>(generation, recording, |event, payload| {
            gateway::ToPortal::parse(event, payload).unwrap()
        })
        .await;
        assert!(said > 2, "{generation:?}: {said}");
    }
}

#[tokio::test]
async fn a_relay_says_what_others_have_said() {
    for (generation, recording) in [
        (Generation::V1, recording!("sep2025-relay")),
        (Generation::V2, recording!("aug2026-relay")),
    ] {
        let said = play::<OfRelay>(generation, recording, |event, _| panic!("{event}")).await;
        assert_eq!(said, 0);
    }
}

/// Plays each connection of a recording, and returns how many messages were said.
async fn play<P: Protocol>(
    generation: Generation,
    recording: &str,
    understand: impl Fn(&str, &RawValue) -> P::ToPortal,
) -> usize {
    let mut said = 0;
    for connection in 1.. {
        let lines: Vec<Line<'_>> = recording
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|line: &Line<'_>| line.conn == connection)
            .collect();
        if lines.is_empty() {
            break;
        }
        said += play_connection::<P>(generation, &lines, &understand).await;
    }

    said
}

async fn play_connection<P: Protocol>(
    generation: Generation,
    lines: &[Line<'_>],
    understand: impl Fn(&str, &RawValue) -> P::ToPortal,
) -> usize {
    let request = lines[0].request.as_ref().unwrap();
    let (rig, key) = rig_like::<P>(request, lines);
    let mut rig = rig.await;
    rig.commands.send(ToUplink::Connect(key)).await.unwrap();
    if generation == Generation::V1 {
        rig.answer(if P::IS_VERSIONED {
            "404 Not Found"
        } else {
            "401 Unauthorized"
        })
        .await;
    }
    let (stream, ours) = rig.read_request().await;
    assert_same_request(&ours, request);
    let mut socket = upgraded(stream, &ours).await;

    let (mut said, mut heard) = (0, 0);
    let mut joined_by = None;
    for line in lines {
        let Some(msg) = line.msg else { continue };
        let envelope = phoenix::Envelope::parse(msg.get()).unwrap();
        match (line.dir, envelope.event.as_str()) {
            // Those of ours come when ours are due.
            (_, phoenix::HEARTBEAT) => {}
            // In V1 numbers go on over connections; ours begin anew.
            ("portal->peer", "phx_reply") if envelope.reference == joined_by => {
                let reply = phoenix::reply_ok(P::TOPIC, Some(0));
                socket.send(Message::text(reply)).await.unwrap();
            }
            ("portal->peer", event) => {
                socket.send(Message::text(msg.get())).await.unwrap();
                heard += usize::from(event != "phx_reply");
            }
            (_, event) => {
                let is_by_itself = [phoenix::JOIN, "set_snownet_capabilities"].contains(&event);
                if !is_by_itself {
                    rig.say(understand(event, envelope.payload())).await;
                    said += 1;
                }
                let ours = hear(&mut socket).await;
                let ours = phoenix::Envelope::parse(&ours).unwrap();
                assert_eq!(ours.topic, envelope.topic);
                assert_eq!(ours.event, envelope.event);
                if event == phoenix::JOIN {
                    assert_eq!(ours.reference, Some(phoenix::Reference::Number(0)));
                    joined_by = envelope.reference.clone();
                }
                // What peers can differs.
                if event != "set_snownet_capabilities" {
                    assert_eq!(ours.payload().get(), envelope.payload().get());
                }
            }
        }
        while heard > 0 {
            let event = rig.event().await;
            heard -= usize::from(matches!(event, FromUplink::Message(_)));
        }
    }

    said
}

/// One that introduces itself like whoever made a request.
fn rig_like<P: Protocol>(
    request: &Recorded<'_>,
    lines: &[Line<'_>],
) -> (impl Future<Output = Rig<P>>, Option<PublicKey>) {
    let target = request.line.split(' ').nth(1).unwrap();
    let url = ::url::Url::parse(&format!("http://p{target}")).unwrap();
    let query = |wanted: &str| {
        let mut pairs = url.query_pairs();
        let found = pairs.find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.into_owned())
    };
    let in_header = request
        .headers
        .iter()
        .find(|(name, _)| *name == "x-authorization");
    let in_header = in_header.map(|(_, value)| value.strip_prefix("Bearer ").unwrap().to_owned());
    let join = lines.iter().find_map(|line| line.msg).unwrap();
    let join = phoenix::Envelope::parse(join.get())
        .unwrap()
        .payload()
        .to_owned();
    let introduction = Introduction {
        external_id: query("external_id"),
        name: query("name"),
        ipv4: query("ipv4").map(|ip| ip.parse().unwrap()),
        ipv6: query("ipv6").map(|ip| ip.parse().unwrap()),
        port: query("port").map(|port| port.parse().unwrap()),
    };
    let token = in_header.or_else(|| query("token")).map(Secret::from);
    let key = query("public_key").map(|key| serde_json::from_str(&format!("{key:?}")).unwrap());
    let rig = Rig::start(None, move |addr| UplinkConfig {
        url: PortalUrl::parse(&format!("ws://{addr}")).unwrap(),
        token,
        certificate: None,
        proxy: None,
        introduction,
        join,
        max_partition_time: None,
        seed: [7; 32],
    });

    (rig, key)
}

/// The first line is the same, and so are the headers but for what is by nature another.
fn assert_same_request(ours: &str, recorded: &Recorded<'_>) {
    let mut lines = ours.trim_end().lines();
    assert_eq!(lines.next().unwrap(), recorded.line);
    let ours: Vec<_> = lines.map(|line| line.split_once(": ").unwrap()).collect();
    let names = |headers: &[(&str, &str)]| -> Vec<String> {
        headers.iter().map(|(name, _)| (*name).to_owned()).collect()
    };
    assert_eq!(names(&ours), names(&recorded.headers));
    for ((name, ours), (_, recorded)) in ours.iter().zip(&recorded.headers) {
        match *name {
            "Host" => assert_eq!(*ours, "127.0.0.1"),
            "Sec-WebSocket-Key" => assert_eq!(ours.len(), recorded.len()),
            "user-agent" => {
                // Portals go by the program and its version, and leave the rest.
                let program = |agent: &str| {
                    let is_known =
                        |word: &&str| PRODUCTS.contains(&word.split('/').next().unwrap());
                    agent.split(' ').find(is_known).map(str::to_owned)
                };
                assert_eq!(program(ours), program(recorded), "{ours}");
            }
            _ => assert_eq!(ours, recorded),
        }
    }
}

const PRODUCTS: [&str; 4] = ["connlib", "headless-client", "gateway", "relay"];

/// Answers a request that was read already.
async fn upgraded(mut stream: TcpStream, request: &str) -> WebSocketStream<TcpStream> {
    use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
    use tokio_tungstenite::tungstenite::protocol::Role;

    let nonce = request
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let accept = derive_accept_key(nonce.unwrap().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();

    WebSocketStream::from_raw_socket(stream, Role::Server, None).await
}
