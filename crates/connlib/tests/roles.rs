//! Portal and relay by their handles, on loopback; clients and gateways want a TUN device and are met by the demo's tests.
#![cfg(feature = "net")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use connlib::error::{Misconfigured, NotAuthorised};
use connlib::portal::admin::{self, Request, Response, Target, TokenFor};
use connlib::{Client, Error, Portal, Relay, Secret, status};

fn ask(socket: &Path, request: Request) -> Response {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let target = Target::Socket(socket.to_owned());

    runtime.block_on(admin::call(&target, request)).unwrap()
}

fn relay_token(socket: &Path) -> Secret {
    let request = Request::CreateToken {
        kind: TokenFor::Relay,
        expires: None,
    };
    let Response::TokenCreated { token, .. } = ask(socket, request) else {
        panic!("no token");
    };

    token
}

fn relay(portal: &Portal, token: Secret, dir: &Path) -> Relay {
    let port = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();

    Relay::builder()
        .api_url(format!("ws://{}", portal.local_addr()))
        .token(token)
        .public_ip4(Ipv4Addr::LOCALHOST)
        .listen_port(port)
        .socket(dir.join("relay.sock"))
        .health(free_tcp())
        .start()
        .unwrap()
}

fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[test]
fn a_relay_joins_its_portal_tells_how_it_is_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let admin_socket = dir.path().join("admin.sock");
    let portal = Portal::builder()
        .admin_socket(&admin_socket)
        .start()
        .unwrap();
    let relay = relay(&portal, relay_token(&admin_socket), dir.path());

    relay.wait_ready().unwrap();
    assert_eq!(relay.status().unwrap()["portal"], "joined");
    assert_eq!(
        status::query(&dir.path().join("relay.sock")).unwrap()["role"],
        "relay"
    );

    relay.stop();
    relay.wait().unwrap();
    assert!(status::query(&dir.path().join("relay.sock")).is_err());
    portal.stop();
    portal.wait().unwrap();
}

#[test]
fn dropping_the_last_handle_stops_a_role() {
    let dir = tempfile::tempdir().unwrap();
    let admin_socket = dir.path().join("admin.sock");
    let portal = Portal::builder()
        .admin_socket(&admin_socket)
        .start()
        .unwrap();
    let relay = relay(&portal, relay_token(&admin_socket), dir.path());
    relay.wait_ready().unwrap();
    drop(relay);

    // Its socket goes with it.
    while dir.path().join("relay.sock").exists() {
        std::thread::yield_now();
    }
}

#[test]
fn a_token_that_the_portal_does_not_know_ends_a_role() {
    let dir = tempfile::tempdir().unwrap();
    let portal = Portal::builder().start().unwrap();
    let relay = relay(&portal, Secret::from(".nonsense"), dir.path());

    let error = relay.wait_ready().unwrap_err();
    assert!(
        matches!(error, Error::NotAuthorised(NotAuthorised::Token { .. })),
        "{error}"
    );
    assert_eq!(relay.wait().unwrap_err().to_string(), error.to_string());
}

#[test]
fn a_relay_that_stands_alone_is_ready_at_once_and_answers_health_checks() {
    let health = free_tcp();
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let relay = Relay::builder()
        .secret(Secret::from("shared"))
        .public_ip4(Ipv4Addr::LOCALHOST)
        .listen_port(port)
        .health(health)
        .socket(dir.path().join("relay.sock"))
        .start()
        .unwrap();
    relay.wait_ready().unwrap();

    let get = |path: &str| {
        let mut stream = TcpStream::connect(health).unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(
        [get("/healthz"), get("/readyz"), get("/")],
        ["200", "200", "404"]
    );
}

#[test]
fn what_is_missing_is_named_before_anything_starts() {
    let error = Client::builder().start().unwrap_err();
    assert!(
        matches!(error, Error::Misconfigured(Misconfigured::Missing { .. })),
        "{error}"
    );
    let error = Client::builder()
        .api_url("wss://portal.example")
        .start()
        .unwrap_err();
    assert!(error.to_string().contains("token"), "{error}");
    let error = Client::builder()
        .api_url("ftp://portal.example")
        .start()
        .unwrap_err();
    assert!(
        matches!(error, Error::Misconfigured(Misconfigured::Url(_))),
        "{error}"
    );
    let error = Relay::builder().start().unwrap_err();
    assert!(error.to_string().contains("--public-ip4"), "{error}");
}
