//! What becomes of an attempt and of a connection, row by row (portal-protocol.md §1.6, §3, §14.4).

use connlib_wire::id::GatewayId;
use connlib_wire::portal::client::GatewayCandidates;

use super::*;

/// The portal asks to be left alone for no time, which costs nothing of the time that it may be away.
const AT_ONCE: &str = "retry-after: 0";

#[tokio::test]
async fn every_refusal_but_a_401_is_tried_again() {
    for status in [
        302, 307, 400, 402, 403, 405, 407, 408, 409, 422, 425, 426, 429, 500, 501, 502, 503, 504,
        599,
    ] {
        let rig = Rig::with(Some(Duration::ZERO), "ws").await;
        rig.connect(KEY).await;
        for _ in 0..2 {
            rig.answer(&format!("{status} x\r\n{AT_ONCE}")).await;
        }
    }
}

#[tokio::test]
async fn a_401_ends_it_and_takes_the_token_away_only_if_the_portal_says_so() {
    const PROBLEM: &str = "application/problem+json";

    for (content_type, body, is_token, detail) in [
        (
            PROBLEM,
            r#"{"code":"invalid_token","detail":"d"}"#,
            true,
            Some("d"),
        ),
        (PROBLEM, r#"{"code":"missing_token"}"#, true, None),
        (
            PROBLEM,
            r#"{"code":"invalid_token","detail":null,"x":[1]}"#,
            true,
            None,
        ),
        (
            "APPLICATION/PROBLEM+JSON ; charset=utf-8",
            r#"{"code":"invalid_token"}"#,
            true,
            None,
        ),
        (
            PROBLEM,
            r#"{"code":"other","detail":"d"}"#,
            false,
            Some("d"),
        ),
        (PROBLEM, r#"{"detail":"d"}"#, false, Some("d")),
        (PROBLEM, r#"{"code":"invalid_token""#, false, None),
        (PROBLEM, "", false, None),
        ("text/plain", "Unauthorized", false, None),
        (
            "text/html",
            r#"{"code":"invalid_token","detail":"d"}"#,
            false,
            None,
        ),
    ] {
        let mut rig = Rig::new().await;
        rig.connect(KEY).await;
        let (mut stream, _) = rig.read_request().await;
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 401 x\r\n{AT_ONCE}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();

        let FromUplink::Failed(end) = rig.event().await else {
            panic!("it goes on: {body}");
        };
        let (takes_token, said) = match end {
            UplinkError::Token { detail } => (true, detail),
            UplinkError::Unauthorized { detail } => (false, detail),
            UplinkError::Rejected { .. } | UplinkError::GaveUp { .. } | UplinkError::Refused(_) => {
                panic!("{body}: {end:?}")
            }
        };
        assert_eq!((takes_token, said.as_deref()), (is_token, detail), "{body}");
    }
}

#[tokio::test]
async fn what_can_not_be_read_as_a_time_to_wait_leaves_the_usual_one() {
    for text in ["-1", "12.5", "", "soon", "9999999999999999999999"] {
        let mut rig = Rig::with(Some(Duration::ZERO), "ws").await;
        rig.connect(KEY).await;
        rig.answer(&format!("503 x\r\nretry-after: {text}")).await;

        // There is no time for the usual one.
        let end = rig.event().await;
        assert!(
            matches!(
                end,
                FromUplink::Failed(UplinkError::GaveUp {
                    last: ConnectError::Status { status: 503, .. },
                    ..
                })
            ),
            "{text}: {end:?}"
        );
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_today_may_be_tomorrow() {
    let authority = Authority::new();
    let rig = Rig::with(Some(Duration::from_millis(1)), "wss").await;
    rig.connect(KEY).await;
    for _ in 0..2 {
        let (stream, _) = rig.listener.accept().await.unwrap();
        let accepted = authority.acceptor("127.0.0.1").accept(stream).await;
        assert!(accepted.is_err());
    }
}

#[tokio::test]
async fn a_name_that_leads_nowhere_and_a_closed_port_are_tried_again() {
    for (url, is_expected) in [
        (
            "ws://portal.invalid",
            (|error| matches!(error, ConnectError::Resolve { .. })) as fn(&ConnectError) -> bool,
        ),
        ("ws://127.0.0.1:1", |error| {
            matches!(error, ConnectError::Tcp { .. })
        }),
    ] {
        let mut rig = Rig::<OfClient>::start(None, |_| UplinkConfig {
            url: PortalUrl::parse(url).unwrap(),
            token: None,
            certificate: None,
            proxy: None,
            introduction: Introduction::default(),
            join: to_raw_value(&()).unwrap(),
            max_partition_time: Some(Duration::from_millis(1)),
            seed: [7; 32],
        })
        .await;
        rig.connect(KEY).await;

        let FromUplink::Failed(UplinkError::GaveUp { after, last }) = rig.event().await else {
            panic!("it goes on");
        };
        assert!(is_expected(&last), "{last}");
        assert_eq!(after, Duration::from_millis(1), "it was tried again");
    }
}

#[tokio::test]
async fn a_portal_that_takes_a_connection_and_says_nothing_is_left() {
    let mut rig = Rig::with(Some(Duration::ZERO), "ws").await;
    rig.connect(KEY).await;
    let _stuck = rig.take_request().await;

    // From here on time passes by itself.
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    let FromUplink::Failed(UplinkError::GaveUp { last, .. }) = rig.event().await else {
        panic!("it goes on");
    };
    assert!(matches!(last, ConnectError::TimedOut), "{last}");
    assert!(before.elapsed() < Duration::from_secs(16));
}

#[tokio::test]
async fn nothing_is_said_while_the_answer_to_the_join_takes_its_time() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let (mut socket, _) = rig.accept().await;
    assert!(hear(&mut socket).await.contains("phx_join"));
    rig.say(ToPortal::NoRelays(Empty {})).await;
    let silence = tokio::time::timeout(Duration::from_millis(100), socket.next()).await;
    assert!(silence.is_err(), "{silence:?}");

    let reply = phoenix::reply_ok("client", Some(0));
    socket.send(Message::text(reply)).await.unwrap();
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));
    assert!(hear(&mut socket).await.contains("set_snownet_capabilities"));
    rig.say(ToPortal::NoRelays(Empty {})).await;
    assert!(
        hear(&mut socket)
            .await
            .contains(r#""no_relays","payload":{},"ref":2"#)
    );
}

#[tokio::test]
async fn a_join_that_broke_off_does_not_block_the_next_connection() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let (mut socket, _) = rig.accept().await;
    assert!(hear(&mut socket).await.contains("phx_join"));
    drop(socket);

    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));
    hear(&mut socket).await;
    rig.say(ToPortal::NoRelays(Empty {})).await;
    assert!(hear(&mut socket).await.contains("no_relays"));
}

#[tokio::test]
async fn a_refused_join_ends_it_with_the_portals_reason() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let (mut socket, _) = rig.accept().await;
    assert!(hear(&mut socket).await.contains("phx_join"));
    let reply = phoenix::reply_error("client", Some(0), "disabled");
    socket.send(Message::text(reply)).await.unwrap();

    let end = rig.event().await;
    assert!(
        matches!(
            end,
            FromUplink::Failed(UplinkError::Rejected {
                reason: phoenix::Reason::Disabled
            })
        ),
        "{end:?}"
    );
}

#[tokio::test]
async fn the_latest_key_counts_after_a_connection_broke_too() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));
    rig.connect(OTHER_KEY).await;
    while let Some(Ok(_)) = socket.next().await {}
    assert!(matches!(rig.event().await, FromUplink::Away));
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));

    // The portal dies.
    drop(socket);
    assert!(matches!(rig.event().await, FromUplink::Away));
    let (_socket, request) = rig.accept().await;
    assert!(request.uri().to_string().contains("AgICAgIC"));
}

#[tokio::test]
async fn what_is_not_for_us_or_not_understood_costs_itself_alone() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));

    socket.send(Message::binary(vec![0; 9])).await.unwrap();
    socket.send(Message::Ping(Vec::new().into())).await.unwrap();
    say(&mut socket, "an_event_of_the_future", "[]").await;
    say(&mut socket, "resource_deleted", r#"{"id":1}"#).await;
    say(
        &mut socket,
        "disconnect",
        r#"{"reason":"certificate_revoked"}"#,
    )
    .await;
    say(&mut socket, "phx_error", "{}").await;
    let id = r#""0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11""#;
    say(&mut socket, "resource_deleted", id).await;

    let heard = rig.event().await;
    assert!(
        matches!(heard, FromUplink::Message(FromPortal::ResourceDeleted(_))),
        "{heard:?}"
    );
    assert!(hear(&mut socket).await.contains("set_snownet_capabilities"));
    let pong = socket.next().await.unwrap().unwrap();
    assert!(matches!(pong, Message::Pong(_)), "{pong:?}");
}

#[tokio::test]
async fn who_is_told_to_connect_does_not_wait_as_long_as_the_last_time() {
    let rig = Rig::with(Some(Duration::from_millis(1)), "ws").await;
    rig.connect(KEY).await;
    drop(rig.take_request().await);
    // All the time that the portal may be away is used up.
    let _stuck = rig.take_request().await;
    rig.connect(OTHER_KEY).await;
    drop(rig.take_request().await);

    let (_stream, request) = rig.read_request().await;
    assert!(request.contains("AgICAgIC"), "{request}");
}

#[tokio::test]
async fn what_went_wrong_and_when_it_is_tried_again_is_told_each_time() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    rig.answer("503 Busy\r\nretry-after: 1").await;
    let told = rig.events.recv().await.unwrap();
    let FromUplink::Failing(ConnectError::Status { status: 503, .. }, delay) = told else {
        panic!("{told:?}");
    };
    assert_eq!(delay, Duration::from_secs(1), "as the portal says");

    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    let told = rig.events.recv().await.unwrap();
    assert!(
        matches!(told, FromUplink::Joined(Generation::V2)),
        "{told:?}"
    );
    drop(socket);
    let told = rig.events.recv().await.unwrap();
    assert!(matches!(told, FromUplink::Away), "{told:?}");
    let told = rig.events.recv().await.unwrap();
    let FromUplink::Failing(ConnectError::Ended { .. }, delay) = told else {
        panic!("{told:?}");
    };
    assert!(delay < Duration::from_secs(1), "{delay:?}");
}

#[tokio::test]
async fn what_waits_for_a_blocked_socket_is_not_said_on_the_next_one() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));

    // More than the buffers of a socket that nobody reads, and less than may wait for it.
    tokio::time::pause();
    for number in 0..100 {
        let line = "x".repeat(128 * 1024);
        rig.say(ToPortal::NewIceCandidates(GatewayCandidates {
            gateway_id: GatewayId(uuid::Uuid::from_u128(number)),
            candidates: vec![line],
        }))
        .await;
    }
    rig.connect(OTHER_KEY).await;
    assert!(matches!(rig.event().await, FromUplink::Away));
    tokio::time::resume();
    let mut arrived = 0;
    while let Some(Ok(_)) = socket.next().await {
        arrived += 1;
    }
    assert!(arrived < 100, "it was never blocked");

    let (mut socket, request) = rig.accept().await;
    assert!(request.uri().to_string().contains("AgICAgIC"));
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));
    assert!(hear(&mut socket).await.contains("set_snownet_capabilities"));
    rig.say(ToPortal::NoRelays(Empty {})).await;
    let heard = hear(&mut socket).await;
    assert!(heard.contains("no_relays"), "{}", heard.len());
}
