use std::sync::Arc;
use std::time::Duration;

use connlib_portal::admin::TokenFor;
use connlib_portal::server::{Server, ServerConfig, TlsFiles};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use crate::peers::{Peer, Portal, config, connect, connect_over, device, relay, request};

/// How many messages of 64 KiB are more than the buffers of the portal and of TCP hold.
const FLOOD: usize = 800;

const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

#[tokio::test]
async fn a_client_is_let_in_and_candidates_flow() {
    let portal = Portal::start().await;
    let relay = join_relay(&portal).await;
    let (mut gateway, at_gateway) = portal.gateway().await;
    let (mut client, at_client) = portal.client("alice").await;
    for init in [&at_gateway, &at_client] {
        assert_eq!(init["relays"][0]["addr"], "192.0.2.10:3478");
    }

    let (gateway_id, client_id) = grant(&mut client, &at_client, &mut gateway).await;
    let candidates = json!({"client_ids": [client_id], "candidates": ["candidate:1"]});
    gateway.say("broadcast_ice_candidates", candidates).await;
    let heard = client.hear("ice_candidates").await;
    assert_eq!(
        heard,
        json!({"gateway_id": gateway_id, "candidates": ["candidate:1"]})
    );

    drop(relay);
    let gone = client.hear("relays_presence").await;
    assert_eq!(gone["connected"], json!([]));
    assert_eq!(gone["disconnected_ids"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn grants_survive_a_restart() {
    let portal = Portal::start().await;
    let (mut gateway, _) = portal.gateway().await;
    let (mut client, init) = portal.client("alice").await;
    let (gateway_id, client_id) = grant(&mut client, &init, &mut gateway).await;

    let restarting = tokio::spawn(portal.restart());
    for peer in [&mut client, &mut gateway] {
        assert_eq!(peer.closed().await, 1012);
        assert!(peer.websocket.next().await.is_none());
    }
    let portal = restarting.await.unwrap();
    let (mut gateway, init) = portal.gateway().await;
    let (mut client, again) = portal.client("alice").await;

    assert_eq!(init["authorizations"][0]["client_id"], client_id);
    assert_eq!(again["resources"].as_array().unwrap().len(), 1);
    let resource = &init["authorizations"][0]["resource_id"];
    assert_eq!(gateway.hear("resource_updated").await["id"], *resource);
    let candidates = json!({"gateway_id": gateway_id, "candidates": []});
    client.say("new_gateway_ice_candidates", candidates).await;
    assert_eq!(gateway.hear("ice_candidates").await["client_id"], client_id);
}

#[tokio::test]
async fn the_newer_socket_of_a_client_wins() {
    let portal = Portal::start().await;
    let (mut older, _) = portal.client("alice").await;

    let (mut newer, _) = portal.client("alice").await;

    assert_eq!(older.closed().await, 1000);
    assert!(newer.is_alive().await);
}

#[tokio::test]
async fn pings_are_answered_and_binary_messages_ignored() {
    let portal = Portal::start().await;
    let (mut client, _) = portal.client("alice").await;

    let binary = Message::binary(vec![0xff; 100]);
    client.websocket.send(binary).await.unwrap();
    let ping = Message::Ping("hello".into());
    client.websocket.send(ping.clone()).await.unwrap();

    let Some(Ok(Message::Pong(pong))) = client.websocket.next().await else {
        panic!("no pong");
    };
    assert_eq!(pong, "hello");
    assert!(client.is_alive().await);
}

#[tokio::test]
async fn a_message_that_is_too_large_costs_only_its_sender() {
    let portal = Portal::start().await;
    let (mut greedy, _) = portal.client("alice").await;
    let (mut other, _) = portal.client("bob").await;

    let large = Message::text("x".repeat(1024 * 1024 + 1));
    // The portal may cut the connection before all of it is written.
    let _ = greedy.websocket.send(large).await;

    assert!(!matches!(
        greedy.websocket.next().await,
        Some(Ok(Message::Text(_)))
    ));
    assert!(other.is_alive().await);
    let allowed = Message::text("x".repeat(1024 * 1024));
    other.websocket.send(allowed).await.unwrap();
    assert!(other.is_alive().await);
}

#[tokio::test]
async fn a_peer_that_does_not_read_blocks_nobody() {
    let portal = Portal::start().await;
    let (mut gateway, _) = portal.gateway().await;
    let (mut deaf, init) = portal.client("alice").await;
    let (_, client_id) = grant(&mut deaf, &init, &mut gateway).await;
    let (mut other, _) = portal.client("bob").await;

    let candidate = "x".repeat(64 * 1024);
    let flood = json!({"client_ids": [client_id], "candidates": [candidate]});
    for _ in 0..FLOOD {
        gateway.say("broadcast_ice_candidates", flood.clone()).await;
    }

    assert!(gateway.is_alive().await);
    assert!(other.is_alive().await);
    let mut heard = 0;
    while let Some(Ok(Message::Text(_))) = deaf.websocket.next().await {
        heard += 1;
    }
    assert!(heard < FLOOD, "it was closed before it was told everything");
}

#[tokio::test]
async fn who_is_silent_is_closed() {
    let portal = Portal::start().await;
    let (mut client, _) = portal.client("alice").await;

    // From here on time leaps to whatever is waited for.
    tokio::time::pause();
    let began_at = tokio::time::Instant::now();

    assert_eq!(client.closed().await, 1000);
    let waited = began_at.elapsed();
    assert!(
        waited >= Duration::from_secs(59) && waited <= Duration::from_secs(61),
        "{waited:?}"
    );
}

#[tokio::test]
async fn who_never_finishes_asking_is_cut() {
    let portal = Portal::start().await;
    let mut stream = TcpStream::connect(portal.addr()).await.unwrap();
    stream
        .write_all(b"GET /client/v2/websocket HT")
        .await
        .unwrap();

    tokio::time::pause();

    let mut rest = vec![];
    let _ = stream.read_to_end(&mut rest).await;
    let (mut client, _) = portal.client("alice").await;
    assert!(client.is_alive().await);
}

#[tokio::test]
async fn tls_is_spoken_with_the_given_certificate() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let config = ServerConfig {
        tls: Some(TlsFiles { cert, key }),
        ..config(&dir)
    };
    let portal = Portal {
        server: Server::start(config).await.unwrap(),
        dir,
    };
    portal.apply(crate::FILE).await;
    let token = portal.client_token("alice").await;

    // A handshake that never ends holds up nobody.
    let _stuck = TcpStream::connect(portal.addr()).await.unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(portal.addr()).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, tcp)
        .await
        .unwrap();

    let request = request(portal.addr(), &device("client", "x", 1), Some(&token));
    let mut client = connect_over(stream, request).await.unwrap();

    let init = client.join("client").await;
    assert_eq!(init["resources"][0]["name"], "lan");
}

/// Lets `client` into its first resource. Returns the ids of both ends.
async fn grant(client: &mut Peer, init: &Value, gateway: &mut Peer) -> (Value, Value) {
    let resource = &init["resources"][0]["id"];
    let ask = json!({"resource_id": resource, "connected_gateway_ids": []});
    client.say("request_authorization", ask).await;
    let create = gateway.hear("create_authorization").await;
    gateway
        .say("authorization_created", json!({"ref": create["ref"]}))
        .await;
    gateway.hear("phx_reply").await;
    let created = client.hear("authorization_created").await;
    assert_eq!(created["preshared_key"], create["client"]["preshared_key"]);

    (
        created["gateway_id"].clone(),
        create["client"]["id"].clone(),
    )
}

async fn join_relay(portal: &Portal) -> Peer {
    let (_, token) = portal.token(TokenFor::Relay).await;
    let request = request(portal.addr(), &relay(3478), Some(&token));
    let mut peer = connect(portal.addr(), request).await.unwrap();
    let join = json!({"topic": "relay", "event": "phx_join", "payload": {"stamp_secret": SECRET}, "ref": 0});
    let join = Message::text(join.to_string());
    peer.websocket.send(join).await.unwrap();
    peer.hear("phx_reply").await;
    peer.hear("init").await;
    peer
}
