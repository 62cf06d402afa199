//! Messages in HTTP.

mod peer;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::authority::Authority;
use super::bootstrap::Resolver;
use super::*;
use peer::{Peer, Version, dns, reply};

const BOTH: [Version; 2] = [Version::Http1, Version::Http2];

#[tokio::test]
async fn a_server_is_asked_under_id_0_and_answers_under_the_query_s() {
    for version in BOTH {
        let (authority, peer) = Peer::answering(version, |head, asked| {
            let path = head.uri.path_and_query().unwrap().as_str();
            let (path, value) = path.split_once("?dns=").unwrap();
            assert_eq!(path, "/dns-query");
            assert!(!value.contains('='));
            assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(value).unwrap(), asked);
            assert_eq!(asked[..2], [0, 0]);
            assert_eq!(head.headers["accept"], "application/dns-message");
            assert_eq!(head.method, "GET");
            dns(answer(asked))
        })
        .await;
        let mut rig = Rig::trusting(Some(authority.file.path()));
        for name in ["a.test", "b.test"] {
            let outcome = rig.ask(&peer.name(), Carrier::Udp, name).await;
            assert_answers(outcome, 0x4711, name);
        }
        assert_eq!(peer.connections(), 1);
    }
}

#[tokio::test]
async fn a_connection_is_there_before_the_first_question_and_again_in_another_network() {
    let (authority, peer) = Peer::answering(Version::Http2, |_, asked| dns(answer(asked))).await;
    let mut rig = Rig::trusting(Some(authority.file.path()));
    rig.exchanges.get_ready_for(&[peer.name()]);
    timeout(LONG, peer.wait_opened(1)).await.unwrap();
    rig.exchanges.get_ready_for(&[peer.name()]);
    let outcome = rig.ask(&peer.name(), Carrier::Udp, "a.test").await;
    assert_answers(outcome, 0x4711, "a.test");
    assert_eq!(peer.connections(), 1);

    rig.exchanges.reset();
    timeout(LONG, peer.wait_opened(2)).await.unwrap();
    let outcome = rig.ask(&peer.name(), Carrier::Udp, "a.test").await;
    assert_answers(outcome, 0x4711, "a.test");
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn a_server_with_a_name_is_found_by_the_system_s_servers() {
    let authority = Authority::new();
    let acceptor = authority.acceptor("dns.test", &["h2"]);
    let peer = Peer::new(acceptor, Version::Http2, |_, asked| dns(answer(asked))).await;
    let resolver = Resolver::new("dns.test", &["127.0.0.1"]).await;
    let mut rig = Rig::trusting(Some(authority.file.path()));
    rig.exchanges.set_bootstrap(&[resolver.addr]);
    let server = Server::Https(format!("https://dns.test:{}/q", peer.addr.port()));

    assert_answers(
        rig.ask(&server, Carrier::Udp, "a.test").await,
        0x4711,
        "a.test",
    );
}

#[tokio::test]
async fn a_server_that_negotiates_nothing_speaks_http1() {
    let authority = Authority::new();
    let acceptor = authority.acceptor("127.0.0.1", &[]);
    let peer = Peer::new(acceptor, Version::Http1, |_, asked| dns(answer(asked))).await;
    let mut rig = Rig::trusting(Some(authority.file.path()));

    let outcome = rig.ask(&peer.name(), Carrier::Udp, "a.test").await;
    assert_answers(outcome, 0x4711, "a.test");
}

#[tokio::test]
async fn what_is_no_answer_is_told_by_what_it_is() {
    for version in BOTH {
        let (authority, peer) = Peer::answering(version, |_, asked| {
            let name = Query::parse(asked).unwrap().name;
            match name.as_str() {
                "500.test" => reply(500, Some("application/dns-message"), answer(asked)),
                "302.test" => reply(302, None, vec![]).map(|mut response| {
                    let location = "https://127.0.0.1/".parse().unwrap();
                    response.headers_mut().insert("location", location);
                    response
                }),
                "204.test" => reply(204, Some("application/dns-message"), vec![]),
                "none.test" => reply(200, None, answer(asked)),
                "json.test" => reply(200, Some("application/dns-json"), answer(asked)),
                "more.test" => {
                    let media_type = "application/dns-message; charset=utf-8";
                    reply(200, Some(media_type), answer(asked))
                }
                "huge.test" => dns([answer(asked), vec![0; 65_536]].concat()),
                "other.test" => dns(answer(&query(0, "a.test"))),
                "empty.test" => dns(vec![]),
                _ => dns(answer(asked)),
            }
        })
        .await;
        let mut rig = Rig::trusting(Some(authority.file.path()));
        let Server::Https(url) = peer.name() else {
            unreachable!();
        };
        for (name, cause) in [
            ("500.test", "500 Internal Server Error"),
            ("302.test", "302 Found"),
            ("204.test", "204 No Content"),
            ("none.test", "application/dns-message"),
            ("json.test", "application/dns-json"),
            ("more.test", "charset=utf-8"),
            ("huge.test", "more than 65535 bytes"),
            ("other.test", "something else"),
            ("empty.test", "something else"),
        ] {
            let outcome = rig.ask(&peer.name(), Carrier::Udp, name).await;
            assert_failed(&outcome, cause);
            assert_failed(&outcome, &url);
        }
        let outcome = rig.ask(&peer.name(), Carrier::Udp, "a.test").await;
        assert_answers(outcome, 0x4711, "a.test");
    }
}

#[tokio::test]
async fn the_longest_answer_comes_whole() {
    for version in BOTH {
        let (authority, peer) = Peer::answering(version, |_, asked| {
            let mut long = answer(asked);
            long.resize(65_535, 0);
            dns(long)
        })
        .await;
        let mut rig = Rig::trusting(Some(authority.file.path()));

        let outcome = rig.ask(&peer.name(), Carrier::Udp, "a.test").await;
        assert_eq!(outcome.unwrap().len(), 65_535);
    }
}

#[tokio::test]
async fn many_at_once_share_one_connection_or_a_few() {
    for (version, most) in [(Version::Http1, 4), (Version::Http2, 1)] {
        let (authority, peer) = Peer::answering(version, |_, asked| dns(answer(asked))).await;
        let mut rig = Rig::trusting(Some(authority.file.path()));
        for id in 0..500 {
            rig.start(id, &peer.name(), Carrier::Udp, query(id as u16, "a.test"));
        }
        for _ in 0..500 {
            let (id, outcome) = rig.over().await;
            assert_answers(outcome, id as u16, "a.test");
        }
        let connections = peer.connections();
        assert!(
            (1..=most).contains(&connections),
            "{connections} connections"
        );
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_is_made_anew() {
    for version in BOTH {
        let (authority, peer) = Peer::answering(version, |_, asked| dns(answer(asked))).await;
        let mut rig = Rig::trusting(Some(authority.file.path()));
        for connections in 1..4 {
            let outcome = rig.ask(&peer.name(), Carrier::Udp, "a.test").await;
            assert_answers(outcome, 0x4711, "a.test");
            assert_eq!(peer.connections(), connections);
            peer.close_all().await;
        }
    }
}

#[tokio::test]
async fn what_two_connections_ended_under_is_given_up() {
    for version in BOTH {
        let authority = Authority::new();
        let acceptor = authority.acceptor("127.0.0.1", &[version.protocol()]);
        let peer = Peer::slamming(acceptor).await;
        let mut rig = Rig::trusting(Some(authority.file.path()));

        let outcome = rig.ask(&peer.name(), Carrier::Udp, "a.test").await;
        assert_unreachable(&outcome, &peer.addr.to_string());
        assert_eq!(peer.connections(), 2);
    }
}

#[tokio::test]
async fn after_silence_there_is_another_connection() {
    for version in BOTH {
        let (authority, peer) = Peer::answering(version, |_, asked| {
            let name = Query::parse(asked).unwrap().name;
            (name.as_str() != "silent.test")
                .then(|| dns(answer(asked)))
                .flatten()
        })
        .await;
        let mut rig = Rig::trusting(Some(authority.file.path()));
        let server = peer.name();
        let outcome = rig.ask_within(&server, Carrier::Udp, "silent.test", SHORT * 3);
        assert_eq!(outcome.await, Err(ExchangeError::TimedOut));

        let outcome = rig.ask(&server, Carrier::Udp, "a.test").await;
        assert_answers(outcome, 0x4711, "a.test");
        assert_eq!(peer.connections(), 2);
    }
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_refused() {
    let authority = Authority::new();
    let peer = Peer::babbling(authority.acceptor("127.0.0.1", &["http/1.1"])).await;
    let mut rig = Rig::trusting(Some(authority.file.path()));

    let outcome = rig.ask(&peer.name(), Carrier::Udp, "a.test").await;
    assert_failed(&outcome, "speaks no HTTP");
}

#[tokio::test]
async fn the_opening_of_a_connection_is_shared_and_waited_for_two_seconds() {
    let authority = Authority::new();
    let peer = Peer::stuck(authority.acceptor("127.0.0.1", &["h2"])).await;
    let mut rig = Rig::trusting(Some(authority.file.path()));
    for id in 0..10 {
        rig.start(id, &peer.name(), Carrier::Udp, query(1, "a.test"));
    }
    timeout(LONG, peer.wait_opened(1)).await.unwrap();
    pass(Duration::from_secs(2)).await;
    for _ in 0..10 {
        assert_unreachable(&rig.over().await.1, "no connection within 2 s");
    }

    // The opening goes on for those who come later.
    rig.start(0, &peer.name(), Carrier::Udp, query(1, "a.test"));
    peer.go_on();
    assert_answers(rig.over().await.1, 1, "a.test");
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn ten_connections_are_opened_at_once() {
    let authority = Authority::new();
    let peer = Peer::stuck(authority.acceptor("127.0.0.1", &["h2"])).await;
    let mut rig = Rig::trusting(Some(authority.file.path()));
    for id in 0..15 {
        let server = Server::Https(format!("https://{}/{id}", peer.addr));
        rig.start(id, &server, Carrier::Udp, query(1, "a.test"));
    }
    timeout(LONG, peer.wait_opened(10)).await.unwrap();
    assert!(timeout(SHORT, peer.wait_opened(11)).await.is_err());
    peer.go_on();
    for _ in 0..15 {
        assert_answers(rig.over().await.1, 1, "a.test");
    }
    assert_eq!(peer.connections(), 15);
}

#[tokio::test]
async fn a_reset_closes_connections_and_fails_requests() {
    for version in BOTH {
        let (authority, peer) = Peer::answering(version, |_, asked| dns(answer(asked))).await;
        let mut rig = Rig::trusting(Some(authority.file.path()));
        let outcome = rig.ask(&peer.name(), Carrier::Udp, "a.test").await;
        assert_answers(outcome, 0x4711, "a.test");
        rig.exchanges.reset();
        peer.wait_closed().await;

        let outcome = rig.ask(&peer.name(), Carrier::Udp, "a.test").await;
        assert_answers(outcome, 0x4711, "a.test");
        assert_eq!(peer.connections(), 2);
    }
}

#[tokio::test]
async fn a_server_that_is_not_who_it_should_be_is_not_asked() {
    let (_, peer) = Peer::answering(Version::Http2, |_, asked| dns(answer(asked))).await;
    let mut rig = Rig::new();
    let outcome = rig.ask(&peer.name(), Carrier::Udp, "a.test").await;
    assert_failed(&outcome, "no TLS with 127.0.0.1");
}

#[tokio::test]
async fn a_closed_port_and_a_wrong_url_are_told_at_once() {
    let addr = {
        let listener = tokio::net::TcpListener::bind(ANY).await.unwrap();
        listener.local_addr().unwrap()
    };
    let mut rig = Rig::new();
    let server = Server::Https(format!("https://{addr}/"));
    let outcome = rig.ask(&server, Carrier::Udp, "a.test").await;
    assert_unreachable(&outcome, &addr.to_string());

    let server = Server::Https("http://127.0.0.1/".into());
    let outcome = rig.ask(&server, Carrier::Udp, "a.test").await;
    assert_failed(&outcome, "only https");
}
