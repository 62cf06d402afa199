//! What a relay answers by HTTP, and what it doesn't.

use std::io::Read as _;
use std::net::TcpStream;

use crate::lone_relay::{Relay, ask};

#[test]
fn questions_by_http_are_answered_as_http_wants_it() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path(), &[]);
    let at = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nhost: relay\r\n\r\n");

    // Somebody who says nothing holds nobody up, and is sent away.
    let mut silent = [relay.health, relay.metrics].map(|addr| TcpStream::connect(addr).unwrap());

    for (addr, path) in [
        (relay.health, "/healthz"),
        (relay.health, "/readyz?verbose=1"),
        (relay.metrics, "/metrics"),
    ] {
        assert_eq!(ask(addr, &at("GET", path)).0, 200, "{path}");
        let (status, answer) = ask(addr, &at("HEAD", path));
        assert_eq!(status, 200, "{path}");
        assert!(answer.ends_with("\r\n\r\n"), "no body: {answer}");
        let (status, answer) = ask(addr, &at("POST", path));
        assert_eq!(status, 405, "{path}");
        assert!(answer.contains("allow: GET, HEAD"), "{answer}");
        assert_eq!(ask(addr, &at("GET", "/")).0, 404);
        for garbage in [
            "\r\n\r\nwhat?\r\n\r\n",
            "GET\r\n\r\n",
            "GET / HTTP/9.9\r\n\r\n",
        ] {
            assert_eq!(ask(addr, garbage).0, 400, "{garbage:?}");
        }
    }
    let (_, text) = ask(relay.metrics, &at("GET", "/metrics"));
    assert!(text.contains("content-type: application/openmetrics-text"));
    assert!(text.ends_with("# EOF\n"), "{text}");

    for silent in &mut silent {
        let mut nothing = Vec::new();
        silent.read_to_end(&mut nothing).unwrap();
        assert_eq!(nothing, b"");
    }
    assert!(relay.running.terminate().success());
}
