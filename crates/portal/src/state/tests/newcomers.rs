use super::*;

const HEARTBEAT: &str = r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":1}"#;

impl Portal {
    /// A gateway that joined, and what it connected with.
    fn older(&mut self) -> (Peer, Connect) {
        let token = self.gateway_token("hq");
        let connect = device(Role::Gateway, &token, "gw", 1);
        let older = self.join(&connect);
        self.messages(older);
        self.pass(Duration::from_secs(10));
        self.waiting.clear();
        (older, connect)
    }

    /// A peer that must wait.
    fn newcomer(&mut self, connect: &Connect) -> Peer {
        let (peer, admission) = self.admit(connect).unwrap();
        assert_eq!(admission, Admission::Waiting);
        peer
    }

    /// How often `peer` was asked for a sign of life.
    fn pings(&mut self, peer: Peer) -> usize {
        self.settle();
        let is_ping = |event: &&Event| {
            **event
                == Event::Ping {
                    socket: peer.socket,
                }
        };
        self.waiting.iter().filter(is_ping).count()
    }
}

#[test]
fn a_gateway_that_comes_back_takes_the_place_of_its_silent_connection() {
    let mut portal = Portal::new();
    let (older, connect) = portal.older();
    let id = portal.gateway_id(older);

    let newer = portal.newcomer(&connect);
    assert_eq!(portal.pings(older), 1);
    portal.pass(Duration::from_millis(999));
    assert_eq!(portal.decided(newer), None);
    assert_eq!(portal.closed(older), None);
    portal.pass(Duration::from_millis(1));

    assert_eq!(portal.decided(newer), Some(Ok(())));
    assert_eq!(portal.closed(older), Some(Goodbye::Replaced));
    portal.say(newer, "phx_join", Value::Null);
    assert_eq!(portal.events(newer), ["phx_reply", "init"]);
    assert_eq!(portal.gateway_id(newer), id);
    // What the edge still says of the older one changes nothing.
    portal.pong(older);
    portal.disconnect(older);
    assert_eq!(portal.state.presence().gateways.len(), 1);
}

#[test]
fn a_second_gateway_is_refused_as_soon_as_the_first_one_shows_that_it_is_alive() {
    let signs: [fn(&mut Portal, Peer); 2] = [
        |portal, older| portal.pong(older),
        |portal, older| portal.say_text(older, HEARTBEAT),
    ];
    for sign in signs {
        let mut portal = Portal::new();
        let (older, connect) = portal.older();
        let newer = portal.newcomer(&connect);
        portal.pass(Duration::from_millis(300));

        sign(&mut portal, older);

        let refused = Some(Err(Refused::GatewayAlreadyConnected));
        assert_eq!(portal.decided(newer), refused);
        portal.pass(Duration::from_secs(5));
        assert_eq!(portal.closed(older), None);
        assert!(!portal.state.sockets.contains_key(&newer.socket));

        // It is asked again when the next one comes: an answer isn't good for ever.
        portal.newcomer(&connect);
        assert_eq!(portal.pings(older), 2);
    }
}

#[test]
fn nobody_waits_for_a_connection_that_is_gone() {
    let mut portal = Portal::new();
    let (older, connect) = portal.older();
    let newer = portal.newcomer(&connect);
    portal.pass(Duration::from_millis(10));

    portal.disconnect(older);
    portal.pass(Duration::ZERO);

    assert_eq!(portal.decided(newer), Some(Ok(())));
}

#[test]
fn of_two_that_come_at_once_the_first_gets_in_and_is_asked_in_turn() {
    let mut portal = Portal::new();
    let (older, connect) = portal.older();
    let first = portal.newcomer(&connect);
    portal.pass(Duration::from_millis(500));
    let second = portal.newcomer(&connect);
    assert_eq!(portal.pings(older), 1, "one question is enough");

    portal.pass(Duration::from_millis(500));
    assert_eq!(portal.decided(first), Some(Ok(())));
    assert_eq!(portal.decided(second), None);
    assert_eq!(portal.pings(first), 1);

    portal.pong(first);
    let refused = Some(Err(Refused::GatewayAlreadyConnected));
    assert_eq!(portal.decided(second), refused);
    assert_eq!(portal.closed(first), None);
}

#[test]
fn a_token_that_is_revoked_while_its_owner_waits_opens_nothing() {
    let mut portal = Portal::new();
    let (older, _) = portal.older();
    let site = portal.state.directory().site_named("hq").unwrap().id;
    let (id, text) = portal.token(TokenKind::Gateway(site), None);
    let newer = portal.newcomer(&device(Role::Gateway, &text, "gw", 1));

    let token = portal.state.directory().tokens()[&id].clone();
    let revoked_at = Some(portal.unix);
    portal.edit(&[Edit::PutToken(crate::model::Token {
        revoked_at,
        ..token
    })]);
    portal.pass(Duration::from_secs(1));

    assert_eq!(portal.decided(newer), Some(Err(Refused::InvalidToken)));
    assert_eq!(portal.closed(older), Some(Goodbye::Replaced));
}

#[test]
fn only_so_many_wait_and_who_leaves_makes_room() {
    let mut portal = Portal::new();
    let (_, connect) = portal.older();
    let waiting: Vec<Peer> = (0..8).map(|_| portal.newcomer(&connect)).collect();
    let refused = Err(Refused::GatewayAlreadyConnected);
    assert_eq!(portal.connect(&connect).map(drop), refused);

    for peer in waiting {
        portal.disconnect(peer);
    }
    assert_eq!(portal.state.newcomers.poll_timeout(), None);
    portal.newcomer(&connect);
}
