//! Portals of either generation, and such as become another.

use connlib_wire::id::{GatewayId, ResourceId};
use connlib_wire::portal::client::{GatewayCandidates, RequestAuthorization};

use super::*;

const V1: &str = "GET /client/websocket?token=abc&external_id=device&name=laptop&public_key=";
const V2: &str = "GET /client/v2/websocket?external_id=device&name=laptop&public_key=";

const NO_SUCH_PATH: &str = "404 Not Found";

#[tokio::test]
async fn a_portal_of_v1_is_found_at_once_addressed_in_its_words_and_remembered() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let request = rig.answer(NO_SUCH_PATH).await;
    assert!(request.starts_with(V2), "{request}");

    let (mut socket, request) = rig.accept().await;
    let uri = request.uri().to_string();
    assert!(format!("GET {uri}").starts_with(V1), "{uri}");
    assert!(!request.headers().contains_key("x-authorization"));
    let agent = request.headers()["user-agent"].to_str().unwrap();
    assert!(agent.contains(" connlib/"), "{agent}");
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));

    rig.say(request_access()).await;
    rig.say(candidates()).await;
    for (name, reference) in [("create_flow", 1), ("broadcast_ice_candidates", 2)] {
        let heard = hear(&mut socket).await;
        let reference = format!(r#""ref":{reference}"#);
        assert!(
            heard.contains(name) && heard.contains(&reference),
            "{heard}"
        );
    }
    say(&mut socket, "flow_creation_failed", &refusal()).await;
    let heard = rig.event().await;
    assert!(
        matches!(
            heard,
            FromUplink::Message(FromPortal::AuthorizationCreationFailed(_))
        ),
        "{heard:?}"
    );

    socket.close(None).await.unwrap();
    drop(socket);
    let (_stream, request) = rig.read_request().await;
    assert!(request.starts_with(V1), "{request}");
}

#[tokio::test]
async fn a_portal_that_becomes_another_is_followed_at_once() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    for (answered, spoken) in [(V2, V1), (V1, V2)] {
        let request = rig.answer("410 Gone").await;
        assert!(request.starts_with(answered), "{request}");
        let (mut socket, request) = rig.accept().await;
        let uri = request.uri();
        assert!(format!("GET {uri}").starts_with(spoken), "{uri}");
        join(&mut socket).await;
        assert!(matches!(rig.event().await, FromUplink::Joined(_)));
        socket.close(None).await.unwrap();
        assert!(matches!(rig.event().await, FromUplink::Away));
    }
}

#[tokio::test]
async fn a_portal_with_neither_path_is_asked_for_the_newer_first_each_time() {
    let mut rig = Rig::with(Some(Duration::from_millis(1)), "ws").await;
    rig.connect(KEY).await;
    for path in [V2, V1, V2, V1] {
        let request = rig.answer(NO_SUCH_PATH).await;
        assert!(request.starts_with(path), "{request}");
    }

    let FromUplink::Failed(UplinkError::GaveUp { last, .. }) = rig.event().await else {
        panic!("it goes on");
    };
    assert!(
        matches!(last, ConnectError::Status { status: 404, .. }),
        "{last}"
    );
}

#[tokio::test]
async fn who_is_told_to_connect_after_a_pause_begins_with_the_newer() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    rig.answer(NO_SUCH_PATH).await;
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));
    rig.commands.send(ToUplink::Disconnect).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}

    rig.connect(OTHER_KEY).await;
    let (_stream, request) = rig.read_request().await;
    assert!(request.starts_with(V2), "{request}");
}

#[tokio::test]
async fn what_refuses_does_not_get_the_token_in_an_address() {
    for answer in [
        "400 Bad Request",
        "403 Forbidden",
        "405 Method Not Allowed",
        "429 Too Many Requests",
        "500 Oops",
        "302 Found",
    ] {
        let rig = Rig::new().await;
        rig.connect(KEY).await;
        for _ in 0..2 {
            let request = rig.answer(&format!("{answer}\r\nretry-after: 0")).await;
            assert!(request.starts_with(V2), "{answer}: {request}");
        }
    }
}

#[tokio::test]
async fn relays_that_are_wanted_come_with_a_new_connection_in_v1() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    rig.answer(NO_SUCH_PATH).await;
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));

    rig.say(ToPortal::NoRelays(Empty {})).await;
    let Message::Close(Some(frame)) = socket.next().await.unwrap().unwrap() else {
        panic!("no proper end");
    };
    assert_eq!(frame.code, CloseCode::Normal);
    while let Some(Ok(_)) = socket.next().await {}
    assert!(matches!(rig.event().await, FromUplink::Away));
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));

    // Once more would be too often, which costs nothing else.
    rig.say(ToPortal::NoRelays(Empty {})).await;
    rig.say(request_access()).await;
    let heard = hear(&mut socket).await;
    assert!(heard.contains("create_flow"), "{heard}");
}

#[tokio::test]
async fn a_relay_puts_its_token_where_the_portal_looks_for_it() {
    const PATH: &str = "GET /relay/websocket?";

    for (answer, expected) in [
        ("401 Unauthorized\r\ncontent-type: text/plain", true),
        ("401 Unauthorized", true),
        ("404 Not Found\r\nretry-after: 0", false),
    ] {
        let mut rig = Rig::<OfRelay>::start(None, |addr| UplinkConfig {
            url: PortalUrl::parse(&format!("ws://{addr}")).unwrap(),
            token: Some(Secret::from("abc")),
            certificate: None,
            proxy: None,
            introduction: Introduction {
                port: Some(3478),
                ..Introduction::default()
            },
            join: to_raw_value(&()).unwrap(),
            max_partition_time: None,
            seed: [7; 32],
        })
        .await;
        rig.commands.send(ToUplink::Connect(None)).await.unwrap();
        let request = rig.answer(answer).await;
        assert!(
            request.starts_with(&format!("{PATH}port=3478 ")),
            "{request}"
        );
        assert!(request.contains("x-authorization: Bearer abc\r\n"));

        // What worked is remembered.
        for _ in 0..2 {
            let (mut socket, request) = rig.accept().await;
            let uri = format!("GET {}", request.uri());
            let in_query = uri.starts_with(&format!("{PATH}token=abc&port=3478"));
            let in_header = request.headers().contains_key("x-authorization");
            assert_eq!((in_query, in_header), (expected, !expected), "{uri}");
            let joined = phoenix::reply_ok("relay", Some(0));
            hear(&mut socket).await;
            socket.send(Message::text(joined)).await.unwrap();
            assert!(matches!(rig.event().await, FromUplink::Joined(_)));
            socket.close(None).await.unwrap();
            assert!(matches!(rig.event().await, FromUplink::Away));
        }
    }
}

#[tokio::test]
async fn a_token_in_an_address_is_in_no_error() {
    for broken in [
        "",
        "HTTP/1.1 101 Switching\r\n\r\n",
        "HTTP/1.1 500 abc\r\n\r\n",
        "SSH-2.0\r\n\r\n",
    ] {
        let mut rig = Rig::with(Some(Duration::ZERO), "ws").await;
        rig.connect(KEY).await;
        rig.answer(NO_SUCH_PATH).await;
        let (mut stream, request) = rig.read_request().await;
        assert!(request.starts_with(V1), "{request}");
        stream.write_all(broken.as_bytes()).await.unwrap();
        drop(stream);

        let end = rig.event().await;
        let FromUplink::Failed(UplinkError::GaveUp { last, .. }) = &end else {
            panic!("it goes on");
        };
        assert!(!format!("{last} {end:?}").contains("abc"), "{end:?}");
    }
}

fn request_access() -> ToPortal {
    ToPortal::RequestAuthorization(RequestAuthorization {
        resource_id: ResourceId(RESOURCE.parse().unwrap()),
        connected_gateway_ids: Vec::new(),
        ipv4: None,
        ipv6: None,
    })
}

fn candidates() -> ToPortal {
    ToPortal::NewIceCandidates(GatewayCandidates {
        gateway_id: GatewayId(RESOURCE.parse().unwrap()),
        candidates: vec!["candidate".into()],
    })
}

fn refusal() -> String {
    format!(r#"{{"resource_id":"{RESOURCE}","reason":"offline"}}"#)
}

const RESOURCE: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11";
