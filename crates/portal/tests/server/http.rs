use std::time::Duration;

use connlib_portal::admin::TokenFor;
use connlib_wire::secret::Secret;
use serde_json::Value;
use tokio_tungstenite::tungstenite;

use crate::peers::{Peer, Portal, connect, device, encode, get, relay, request};

#[tokio::test]
async fn without_a_good_token_there_is_no_socket() {
    let portal = Portal::start().await;
    let (relay_id, revoked) = portal.token(TokenFor::Relay).await;
    let alice = portal.client_token("alice").await;
    let revoke = connlib_portal::admin::Request::RevokeToken { id: relay_id };
    connlib_portal::admin::call(&portal.target(), revoke)
        .await
        .unwrap();

    for (path, token, code) in [
        (device("client", "x", 1), None, "missing_token"),
        (device("gateway", "x", 1), None, "missing_token"),
        (relay(3478), None, "missing_token"),
        (
            device("client", "x", 1),
            Some("nonsense".into()),
            "invalid_token",
        ),
        (
            device("gateway", "x", 1),
            Some(alice.clone()),
            "invalid_token",
        ),
        (relay(3478), Some(revoked), "invalid_token"),
    ] {
        let request = request(portal.addr(), &path, token.as_ref());
        let (status, problem) = refused(connect(portal.addr(), request).await);
        assert_eq!((status, &problem["code"]), (401, &code.into()), "{path}");
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["title"], "Unauthorized");
        assert_eq!(problem["status"], 401);
        assert!(problem["detail"].is_string());
    }
}

#[tokio::test]
async fn a_token_may_come_in_the_query_and_the_header_wins() {
    let portal = Portal::start().await;
    let token = portal.client_token("alice").await;
    let with_token = |token: &Secret| {
        let path = device("client", "x", 1);
        format!("{path}&token={}", encode(token.expose()))
    };

    let in_query = request(portal.addr(), &with_token(&token), None);
    connect(portal.addr(), in_query).await.unwrap();

    let bad = Secret::from("bad");
    let bad_header = request(portal.addr(), &with_token(&token), Some(&bad));
    refused(connect(portal.addr(), bad_header).await);
    let bad_query = request(portal.addr(), &with_token(&bad), Some(&token));
    connect(portal.addr(), bad_query).await.unwrap();
}

#[tokio::test]
async fn who_connects_without_end_is_told_to_wait() {
    let portal = Portal::start().await;
    let token = portal.client_token("alice").await;
    let path = device("client", "x", 1);

    let mut attempts = 0..2000;
    let refused = loop {
        attempts.next().expect("it is held up");
        let request = request(portal.addr(), &path, Some(&token));
        if let Err(refused) = connect(portal.addr(), request).await {
            break refused;
        }
    };

    let tungstenite::Error::Http(response) = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(response.headers()["retry-after"], "1");
    let (status, problem) = self::refused(Err(refused));
    assert_eq!((status, &problem["code"]), (503, &"rate_limit".into()));
    let another = portal.client_token("alice").await;
    let request = request(portal.addr(), &path, Some(&another));
    connect(portal.addr(), request).await.unwrap();
}

#[tokio::test]
async fn bad_parameters_are_refused_by_name() {
    let portal = Portal::start().await;
    let token = portal.client_token("alice").await;
    for path in [
        "/client/v2/websocket",
        "/client/v2/websocket?external_id=x&name=n",
        "/client/v2/websocket?external_id=x&name=n&public_key=short",
        "/client/v2/websocket?external_id=x&external_id=y&name=n&public_key=short",
    ] {
        let request = request(portal.addr(), path, Some(&token));
        let (status, problem) = refused(connect(portal.addr(), request).await);
        assert_eq!(status, 400, "{path}");
        assert_eq!(problem["code"], "invalid_connect_params", "{path}");
    }

    let mut request = request(portal.addr(), &device("client", "x", 1), Some(&token));
    let agent = "Mozilla/5.0 (X11; Linux x86_64)".parse().unwrap();
    request.headers_mut().insert("user-agent", agent);
    let (status, problem) = refused(connect(portal.addr(), request).await);
    assert_eq!(
        (status, &problem["code"]),
        (400, &"invalid_connect_params".into())
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("user-agent") && detail.contains("headless-client"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_gateway_that_is_connected_is_not_connected_twice() {
    let portal = Portal::start().await;
    let (mut first, _) = portal.gateway().await;

    let token = portal.gateway_token().await;
    let again = request(portal.addr(), &device("gateway", "gw", 2), Some(&token));
    let again = tokio::select! {
        again = connect(portal.addr(), again) => again,
        () = first.answer_pings() => panic!("the first one was told something"),
    };
    let (status, problem) = refused(again);

    assert_eq!(status, 409);
    assert_eq!(problem["code"], "gateway_already_connected");
    assert!(first.is_alive().await);
}

#[tokio::test]
async fn a_gateway_whose_old_connection_is_silent_is_let_in_before_heartbeats_are_missed() {
    let portal = Portal::start().await;
    // Nobody reads it any longer, and its end is never told: its network is gone.
    let (first, _) = portal.gateway().await;
    let token = portal.gateway_token().await;
    let again = || request(portal.addr(), &device("gateway", "gw", 2), Some(&token));

    let second = connect(portal.addr(), again());
    let second = tokio::time::timeout(Duration::from_secs(20), second).await;
    let mut second = second.expect("it waits no longer").unwrap();
    second.join("gateway").await;
    assert!(second.is_alive().await);

    // One that ended is no hindrance at all.
    drop((first, second));
    let mut third = connect(portal.addr(), again()).await.unwrap();
    third.join("gateway").await;
}

#[tokio::test]
async fn who_leaves_while_it_waits_takes_no_place() {
    let portal = Portal::start().await;
    let (mut first, _) = portal.gateway().await;
    let token = portal.gateway_token().await;
    let again = request(portal.addr(), &device("gateway", "gw", 2), Some(&token));

    let left = tokio::time::timeout(Duration::from_millis(100), connect(portal.addr(), again));
    assert!(left.await.is_err(), "it had to wait");

    let heard = tokio::time::timeout(Duration::from_millis(1_500), first.answer_pings());
    assert!(heard.await.is_err(), "the first one was told something");
    assert!(first.is_alive().await);
}

#[tokio::test]
async fn who_asks_for_no_websocket_gets_none_and_replaces_nobody() {
    let portal = Portal::start().await;
    let (mut client, _) = portal.client("alice").await;
    let token = portal.client_token("alice").await;
    let path = device("client", "alice", 1);

    let (status, _, _) = get(portal.addr(), &path, "").await;
    assert_eq!(status, 401);
    let header = format!("X-Authorization: Bearer {}\r\n", token.expose());
    let (status, _, body) = get(portal.addr(), &path, &header).await;
    assert_eq!(status, 400);
    assert!(body.contains("not_a_websocket"), "{body}");
    assert!(client.is_alive().await);

    let (status, _, body) = get(portal.addr(), "/healthz", "").await;
    assert_eq!((status, body.as_str()), (200, "ok\n"));
    let (status, _, body) = get(portal.addr(), "/elsewhere", "").await;
    assert_eq!(status, 404);
    assert!(body.contains("not_found"), "{body}");
}

/// The status and problem of a handshake that must have failed.
fn refused(result: Result<Peer, tungstenite::Error>) -> (u16, Value) {
    match result.map(drop) {
        Err(tungstenite::Error::Http(response)) => {
            let kind = response.headers()["content-type"].to_str().unwrap();
            assert_eq!(kind, "application/problem+json");
            let body = response.body().clone().unwrap_or_default();
            let problem = serde_json::from_slice(&body).unwrap();
            (response.status().as_u16(), problem)
        }
        other => panic!("{other:?}"),
    }
}
