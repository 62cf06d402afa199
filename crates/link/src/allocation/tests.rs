//! The TURN client against a relay that says what each test wants (connections.md §13.2).
#![expect(clippy::disallowed_methods, reason = "a start of virtual time")]

use super::*;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{Attribute, Builder, Method};
use uuid::Uuid;

const V4: &str = "203.0.113.9:3478";
const V6: &str = "[2001:db8::9]:3478";
const HOST_V4: &str = "198.51.100.7:52625";
const HOST_V6: &str = "[2001:db8::7]:52625";
const LENT_V4: &str = "203.0.113.9:50000";
const LENT_V6: &str = "[2001:db8::9]:50000";
const PEER_V4: &str = "192.0.2.33:40000";
const PEER_V6: &str = "[2001:db8::33]:40000";
const LIFETIME: Duration = Duration::from_secs(600);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// An allocation, and what it has asked.
struct Rig {
    allocation: Allocation,
    start: Instant,
    now: Instant,
    pool: Pool,
}

/// What was asked of the relay.
struct Asked {
    to: SocketAddr,
    id: TransactionId,
    method: Method,
    has_nonce: bool,
    has_integrity: bool,
    lifetime: Option<Duration>,
    peer: Option<SocketAddr>,
    channel: Option<u16>,
}

impl Rig {
    fn new(families: &[&str]) -> Self {
        let now = Instant::now();
        let pool = Pool::new(2_048, 16);
        let of = |v4: bool| {
            families
                .iter()
                .map(|text| addr(text))
                .find(|addr| addr.is_ipv4() == v4)
        };
        let server = RelayServer {
            id: connlib_wire::id::RelayId(Uuid::from_u128(1)),
            v4: of(true),
            v6: of(false),
            username: "1:salt".to_owned(),
            password: Secret::from("password"),
        };

        Self {
            allocation: Allocation::new(now, server, 7, pool.clone()),
            start: now,
            now,
            pool,
        }
    }

    /// A relay of one family that has lent an address.
    fn allocated(families: &[&str], lent: &[&str]) -> Self {
        let mut rig = Self::new(families);
        let probes = rig.asked();
        rig.succeed(&probes[0], &[Attribute::XorMappedAddress(addr(HOST_V4))]);
        rig.challenge();
        rig.lend(lent);

        rig
    }

    /// Answers the first ALLOCATE as a relay does that wants a nonce.
    fn challenge(&mut self) {
        let allocate = self.only(Method::Allocate);
        assert!(!allocate.has_nonce);
        let attributes = [Attribute::Nonce("nonce"), Attribute::Realm(REALM)];
        self.refuse_with(&allocate, 401, &attributes);
    }

    fn lend(&mut self, lent: &[&str]) {
        let allocate = self.only(Method::Allocate);
        assert!(allocate.has_nonce);
        let mut attributes: Vec<_> = lent
            .iter()
            .map(|text| Attribute::XorRelayedAddress(addr(text)))
            .collect();
        attributes.push(Attribute::Lifetime(LIFETIME));
        self.succeed(&allocate, &attributes);
    }

    /// Everything that was asked since the last look.
    fn asked(&mut self) -> Vec<Asked> {
        std::iter::from_fn(|| self.allocation.poll_transmit())
            .map(|(to, bytes)| {
                let message = Message::parse(&bytes).unwrap();
                Asked {
                    to,
                    id: message.transaction_id(),
                    method: message.method(),
                    has_nonce: message.nonce().is_some(),
                    has_integrity: message.has_integrity(),
                    lifetime: message.lifetime(),
                    peer: message.peer_address(),
                    channel: message.channel_number(),
                }
            })
            .collect()
    }

    /// The one thing that was asked.
    fn only(&mut self, method: Method) -> Asked {
        let mut asked = self.asked();
        let methods: Vec<_> = asked.iter().map(|asked| asked.method).collect();
        assert_eq!(methods, [method]);

        asked.remove(0)
    }

    fn succeed(&mut self, asked: &Asked, attributes: &[Attribute<'_>]) {
        let key = self.allocation.key.expose().to_vec();
        assert!(self.answer(asked, Class::Success, attributes, &key));
    }

    fn refuse(&mut self, asked: &Asked, code: u16) {
        self.refuse_with(asked, code, &[]);
    }

    fn refuse_with(&mut self, asked: &Asked, code: u16, attributes: &[Attribute<'_>]) {
        let key = self.allocation.key.expose().to_vec();
        let mut all = vec![Attribute::ErrorCode(code, "")];
        all.extend_from_slice(attributes);
        assert!(self.answer(asked, Class::Error, &all, &key));
    }

    fn answer(
        &mut self,
        asked: &Asked,
        class: Class,
        attributes: &[Attribute<'_>],
        key: &[u8],
    ) -> bool {
        let builder = self.builder(asked, class, attributes);
        let bytes = builder.integrity(key).finish().unwrap();

        self.hand_over(asked, &bytes)
    }

    /// An answer that anybody could have given. Returns whether it counted.
    fn refuse_unsigned(&mut self, asked: &Asked, code: u16, attributes: &[Attribute<'_>]) -> bool {
        let mut all = vec![Attribute::ErrorCode(code, "")];
        all.extend_from_slice(attributes);
        let bytes = self.builder(asked, Class::Error, &all).finish().unwrap();

        self.hand_over(asked, &bytes)
    }

    fn builder(&self, asked: &Asked, class: Class, attributes: &[Attribute<'_>]) -> Builder {
        let builder = Builder::new(self.pool.take(0), asked.method, class, asked.id);

        (attributes.iter()).fold(builder, |builder, attribute| builder.attribute(*attribute))
    }

    fn hand_over(&mut self, asked: &Asked, bytes: &[u8]) -> bool {
        let message = Message::parse(bytes).unwrap();
        let local = addr(if asked.to.is_ipv4() { HOST_V4 } else { HOST_V6 });

        self.allocation
            .handle_response(self.now, asked.to, local, &message)
    }

    /// Lets time pass until the allocation wants something, or `limit` is over; whether it wanted something.
    fn wait(&mut self, limit: Duration) -> bool {
        let end = self.now + limit;
        // Each deadline must move something: a bound shows a busy loop.
        for _ in 0..100 {
            match self.allocation.poll_timeout() {
                Some((at, _)) if at <= end => {
                    self.now = self.now.max(at);
                    self.allocation.handle_timeout(self.now);
                    if !self.allocation.transmits.is_empty() {
                        return true;
                    }
                }
                _ => {
                    self.now = end;
                    return false;
                }
            }
        }
        panic!("a busy loop");
    }

    fn withdrawn(&mut self) -> Vec<SocketAddr> {
        std::iter::from_fn(|| self.allocation.poll_event())
            .filter_map(|event| match event {
                Event::Invalidated(candidate) => Some(candidate.addr()),
                Event::Added(_) | Event::Measured => None,
            })
            .collect()
    }
}

#[test]
fn credentials_refused_after_a_nonce_are_tried_once_more_and_never_again() {
    let mut rig = Rig::new(&[V4]);
    let probe = rig.only(Method::Binding);
    rig.succeed(&probe, &[Attribute::XorMappedAddress(addr(HOST_V4))]);
    rig.challenge();
    for _ in 0..2 {
        assert_eq!(rig.allocation.failure(), None);
        let allocate = rig.only(Method::Allocate);
        rig.refuse_with(
            &allocate,
            401,
            &[Attribute::Nonce("another"), Attribute::Realm(REALM)],
        );
    }

    assert_eq!(rig.allocation.failure(), Some(Failure::Unauthorized));
    assert!(
        !rig.wait(Duration::from_secs(3_600)),
        "the timers are silent"
    );
}

#[test]
fn a_question_that_was_damaged_on_its_way_is_asked_again() {
    let mut rig = Rig::new(&[V4]);
    let probe = rig.only(Method::Binding);
    rig.refuse_with(&probe, 400, &[]);
    assert_eq!(rig.allocation.failure(), None);

    rig.wait(Duration::from_millis(250));
    let again = rig.only(Method::Binding);
    assert_eq!(again.id, probe.id);
    rig.succeed(&again, &[Attribute::XorMappedAddress(addr(HOST_V4))]);
    assert_eq!(rig.only(Method::Allocate).method, Method::Allocate);
}

#[test]
fn a_relay_that_wants_to_be_asked_without_credentials_first_is_asked_so() {
    let mut rig = Rig::new(&[V4]);
    let probe = rig.only(Method::Binding);
    rig.succeed(&probe, &[Attribute::XorMappedAddress(addr(HOST_V4))]);
    let challenge = [Attribute::Nonce("nonce"), Attribute::Realm(REALM)];

    let signed = rig.only(Method::Allocate);
    assert!(signed.has_integrity);
    assert!(!rig.refuse_unsigned(&signed, 401, &challenge), "only bare");
    assert!(rig.refuse_unsigned(&signed, 400, &[]));
    let bare = rig.only(Method::Allocate);
    assert!(!bare.has_integrity && !bare.has_nonce);
    assert!(!rig.refuse_unsigned(&bare, 400, &[]), "it was bare");
    assert!(rig.refuse_unsigned(&bare, 401, &challenge));
    rig.lend(&[LENT_V4]);
    assert_eq!(rig.allocation.failure(), None);

    // From here on nothing counts that isn't signed.
    rig.allocation.bind_channel(rig.now, addr(PEER_V4));
    let bind = rig.only(Method::ChannelBind);
    assert!(bind.has_integrity);
    for code in [400, 401] {
        assert!(!rig.refuse_unsigned(&bind, code, &challenge), "{code}");
    }
    // But that the nonce is stale, as servers by the standard say it.
    assert!(rig.refuse_unsigned(&bind, 438, &challenge));
    let again = rig.only(Method::ChannelBind);
    assert!(again.has_integrity && again.has_nonce);
    assert_eq!((again.peer, again.channel), (bind.peer, bind.channel));
}

/// One bit of it, and its integrity is wrong: that says nothing of the credentials, and costs no allocation.
#[test]
fn a_request_whose_credentials_were_damaged_on_their_way_is_asked_again() {
    let mut rig = Rig::allocated(&[V4], &[LENT_V4]);
    rig.withdrawn();
    rig.allocation.bind_channel(rig.now, addr(PEER_V4));
    let bind = rig.only(Method::ChannelBind);
    rig.refuse_with(
        &bind,
        401,
        &[Attribute::Nonce("another"), Attribute::Realm(REALM)],
    );

    let again = rig.only(Method::ChannelBind);
    assert_eq!((again.peer, again.channel), (bind.peer, bind.channel));
    assert!(rig.allocation.carries(addr(PEER_V4)));
    rig.succeed(&again, &[]);
    assert_eq!(rig.allocation.failure(), None);
    assert_eq!(rig.withdrawn(), []);
}

#[test]
fn a_stale_nonce_is_replaced_and_the_request_repeated() {
    let mut rig = Rig::allocated(&[V4], &[LENT_V4]);
    rig.allocation.bind_channel(rig.now, addr(PEER_V4));
    let bind = rig.only(Method::ChannelBind);
    let fresh = [Attribute::Nonce("forged"), Attribute::Realm(REALM)];
    assert!(!rig.refuse_unsigned(&bind, 438, &fresh), "it is not signed");
    rig.refuse_with(
        &bind,
        438,
        &[Attribute::Nonce("fresh"), Attribute::Realm(REALM)],
    );

    let again = rig.only(Method::ChannelBind);
    assert_eq!((again.peer, again.channel), (bind.peer, bind.channel));
    assert_ne!(again.id, bind.id);
}

#[test]
fn a_refresh_that_is_due_while_one_is_under_way_is_not_asked_twice() {
    let mut rig = Rig::allocated(&[V4], &[LENT_V4]);
    rig.now = rig.start + LIFETIME / 2;
    rig.allocation.handle_timeout(rig.now);
    let refreshes =
        |asked: Vec<Asked>| asked.iter().filter(|a| a.method == Method::Refresh).count();
    assert_eq!(refreshes(rig.asked()), 1);

    rig.allocation.handle_timeout(rig.now);
    assert_eq!(refreshes(rig.asked()), 0);
    assert!(rig.allocation.poll_timeout().unwrap().0 > rig.now);
}

#[test]
fn an_unanswered_refresh_ends_the_loan_after_eight_seconds_not_at_the_end_of_its_life() {
    let mut rig = Rig::allocated(&[V4], &[LENT_V4]);
    rig.withdrawn();
    let due_at = rig.start + LIFETIME / 2;
    rig.now = due_at;
    rig.allocation.keepalive_at = None;
    while rig.allocation.failure().is_none() {
        let (at, _) = rig.allocation.poll_timeout().unwrap();
        rig.now = rig.now.max(at);
        rig.allocation.handle_timeout(rig.now);
        rig.asked();
    }

    assert_eq!(rig.withdrawn(), [addr(LENT_V4)]);
    assert_eq!(rig.allocation.failure(), Some(Failure::NoResponse));
    assert_eq!((rig.now - due_at).as_millis(), 8_125);
}

#[test]
fn a_relay_that_knows_no_allocation_makes_another_and_binds_that_peer_again() {
    let mut rig = Rig::allocated(&[V4], &[LENT_V4]);
    rig.withdrawn();
    rig.allocation.bind_channel(rig.now, addr(PEER_V4));
    let bind = rig.only(Method::ChannelBind);
    rig.refuse(&bind, 437);

    assert_eq!(rig.withdrawn(), [addr(LENT_V4)]);
    rig.lend(&["203.0.113.9:50001"]);
    assert_eq!(rig.only(Method::ChannelBind).peer, Some(addr(PEER_V4)));
}

#[test]
fn an_allocation_we_know_nothing_of_is_given_back_first() {
    let mut rig = Rig::new(&[V4]);
    let probe = rig.only(Method::Binding);
    rig.succeed(&probe, &[Attribute::XorMappedAddress(addr(HOST_V4))]);
    rig.challenge();
    let allocate = rig.only(Method::Allocate);
    rig.refuse(&allocate, 437);
    let release = rig.only(Method::Refresh);
    assert_eq!(release.lifetime, Some(Duration::ZERO));
    rig.succeed(&release, &[Attribute::Lifetime(Duration::ZERO)]);

    rig.lend(&[LENT_V4]);
}

#[test]
fn the_second_family_to_answer_changes_nothing_and_its_silence_neither() {
    let mut rig = Rig::new(&[V4, V6]);
    let probes = rig.asked();
    assert_eq!(probes.len(), 2);
    rig.succeed(&probes[0], &[Attribute::XorMappedAddress(addr(HOST_V4))]);
    let active = rig.allocation.active();
    rig.challenge();
    rig.lend(&[LENT_V4, LENT_V6]);
    rig.succeed(&probes[1], &[Attribute::XorMappedAddress(addr(HOST_V6))]);
    assert_eq!(rig.allocation.active(), active);
    assert_eq!(rig.asked().len(), 0, "no second allocation");
    let own: Vec<_> = rig.allocation.own_candidates().map(|c| c.addr()).collect();
    assert_eq!(own, [addr(HOST_V4), addr(HOST_V6)]);

    let mut rig = Rig::new(&[V4, V6]);
    let probes = rig.asked();
    rig.succeed(&probes[0], &[Attribute::XorMappedAddress(addr(HOST_V4))]);
    rig.challenge();
    rig.lend(&[LENT_V4]);
    rig.withdrawn();
    rig.allocation.keepalive_at = None;
    while rig.wait(Duration::from_secs(20)) {
        rig.asked();
    }
    assert_eq!((rig.allocation.failure(), rig.withdrawn()), (None, vec![]));
}

#[test]
fn a_relay_that_carries_packets_is_there_however_many_answers_are_lost() {
    let mut rig = Rig::allocated(&[V4], &[LENT_V4]);
    let number = rig.allocation.bind_channel(rig.now, addr(PEER_V4)).unwrap();
    let bind = rig.only(Method::ChannelBind);
    rig.succeed(&bind, &[]);
    rig.allocation.check(rig.now);
    let until = rig.now + DEAD * 4;
    while rig.now < until {
        rig.wait(Duration::from_millis(100));
        let peer = rig.allocation.peer_behind(rig.now, number);
        assert_eq!(peer, Some(addr(PEER_V4)));
    }
    assert_eq!((rig.allocation.failure(), rig.withdrawn()), (None, vec![]));
    assert!(!rig.asked().is_empty(), "it is asked all the time");

    // It falls silent.
    while rig.allocation.failure().is_none() {
        assert!(rig.wait(DEAD * 2) || rig.allocation.failure().is_some());
        assert!(rig.now < until + DEAD * 4);
    }
    assert_eq!(rig.withdrawn(), [addr(LENT_V4)]);
}

#[test]
fn a_family_that_never_answered_is_not_waited_for_when_the_other_one_falls_silent() {
    let mut rig = Rig::allocated(&[V4, V6], &[LENT_V4]);
    let until = rig.now + Duration::from_secs(10);
    while rig.now < until {
        rig.wait(until - rig.now);
        rig.asked();
    }
    assert_eq!(rig.allocation.failure(), None, "the other family serves");
    let asked_at = rig.now;
    rig.allocation.check(rig.now);
    while rig.allocation.failure().is_none() {
        rig.wait(Duration::from_secs(1));
        let asked = rig.asked();
        assert!(asked.iter().all(|asked| asked.to == addr(V4)), "in vain");
    }
    assert!(rig.now < asked_at + DEAD * 2);
}

#[test]
fn a_family_that_falls_silent_gives_way_to_the_other_one() {
    let mut rig = Rig::allocated(&[V4, V6], &[LENT_V4]);
    assert_eq!(rig.allocation.active(), Some(addr(V4)));
    rig.asked();
    rig.allocation.check(rig.now);
    let mut to_v6 = None;
    while to_v6.is_none() {
        assert!(rig.wait(Duration::from_secs(20)));
        let asked = rig.asked();
        to_v6 = asked.into_iter().find(|asked| {
            asked.to == addr(V6) && asked.method == Method::Binding && rig.now > rig.start + DEAD
        });
    }
    rig.succeed(
        &to_v6.unwrap(),
        &[Attribute::XorMappedAddress(addr(HOST_V6))],
    );

    assert_eq!(rig.allocation.active(), Some(addr(V6)));
    assert_eq!(rig.allocation.failure(), None);
    rig.lend(&[LENT_V6]);
}

/// How long a relay that is asked whether it lives may be silent.
const DEAD: Duration = Duration::from_millis(999);

#[test]
fn a_peer_is_bound_once_however_often_it_is_wanted() {
    let mut rig = Rig::new(&[V4]);
    let probe = rig.only(Method::Binding);
    rig.succeed(&probe, &[Attribute::XorMappedAddress(addr(HOST_V4))]);
    for _ in 0..3 {
        rig.allocation.bind_channel(rig.now, addr(PEER_V4));
    }
    rig.challenge();
    rig.lend(&[LENT_V4]);
    assert_eq!(rig.only(Method::ChannelBind).peer, Some(addr(PEER_V4)));
    for _ in 0..3 {
        rig.allocation.bind_channel(rig.now, addr(PEER_V4));
    }
    assert_eq!(rig.asked().len(), 0);
}

#[test]
fn a_peer_of_a_family_without_a_lent_address_is_not_bound() {
    let mut rig = Rig::allocated(&[V4], &[LENT_V4]);
    assert_eq!(rig.allocation.bind_channel(rig.now, addr(PEER_V6)), None);
    assert_eq!(rig.asked().len(), 0);
}

#[test]
fn a_refused_peer_is_left_alone_for_a_while() {
    let mut rig = Rig::allocated(&[V4], &[LENT_V4]);
    rig.allocation.bind_channel(rig.now, addr(PEER_V4));
    let bind = rig.only(Method::ChannelBind);
    rig.refuse(&bind, 403);
    assert_eq!(rig.allocation.bind_channel(rig.now, addr(PEER_V4)), None);
    assert_eq!(rig.asked().len(), 0);

    rig.now += Duration::from_secs(10);
    assert!(
        rig.allocation
            .bind_channel(rig.now, addr(PEER_V4))
            .is_some()
    );
}

#[test]
fn a_relay_without_room_is_asked_again_later_and_later() {
    for code in [486, 500, 508] {
        let mut rig = Rig::new(&[V4]);
        let probe = rig.only(Method::Binding);
        rig.succeed(&probe, &[Attribute::XorMappedAddress(addr(HOST_V4))]);
        rig.challenge();
        for wait in [5, 10, 20] {
            let allocate = rig.only(Method::Allocate);
            rig.refuse(&allocate, code);
            assert_eq!(rig.allocation.failure(), None, "{code}");
            let refused_at = rig.now;
            assert!(rig.wait(Duration::from_secs(600)));
            assert_eq!((rig.now - refused_at).as_secs(), wait, "{code}");
            let probe = rig.only(Method::Binding);
            rig.succeed(&probe, &[Attribute::XorMappedAddress(addr(HOST_V4))]);
        }
        rig.lend(&[LENT_V4]);
    }
}

#[test]
fn what_a_relay_will_never_do_ends_the_allocation() {
    for (code, failure) in [
        (420, Failure::Protocol),
        (440, Failure::Protocol),
        (441, Failure::Unauthorized),
        (442, Failure::Protocol),
    ] {
        let mut rig = Rig::new(&[V4]);
        let probe = rig.only(Method::Binding);
        rig.succeed(&probe, &[Attribute::XorMappedAddress(addr(HOST_V4))]);
        rig.challenge();
        let allocate = rig.only(Method::Allocate);
        rig.refuse(&allocate, code);
        assert_eq!(rig.allocation.failure(), Some(failure), "{code}");
    }
}

#[test]
fn a_loan_that_ran_out_is_asked_for_again() {
    let mut rig = Rig::allocated(&[V4], &[LENT_V4]);
    rig.withdrawn();
    // Asleep beyond the end.
    rig.now += LIFETIME + Duration::from_secs(1);
    rig.allocation.handle_timeout(rig.now);

    assert_eq!(rig.withdrawn(), [addr(LENT_V4)]);
    let probe = rig.only(Method::Binding);
    rig.succeed(&probe, &[Attribute::XorMappedAddress(addr(HOST_V4))]);
    rig.lend(&[LENT_V4]);
}

#[test]
fn a_change_of_network_that_changed_nothing_costs_no_allocation() {
    let mut rig = Rig::allocated(&[V4], &[LENT_V4]);
    rig.withdrawn();
    rig.allocation.network_changed(rig.now);
    assert!(!rig.allocation.carries(addr(PEER_V4)));
    let probe = rig.only(Method::Binding);
    rig.succeed(&probe, &[Attribute::XorMappedAddress(addr(HOST_V4))]);

    assert!(rig.allocation.carries(addr(PEER_V4)));
    assert_eq!(rig.withdrawn(), []);
    assert_eq!(rig.only(Method::Refresh).lifetime, None);
}

#[test]
fn a_change_of_network_that_shows_us_elsewhere_costs_the_loan() {
    let mut rig = Rig::allocated(&[V4], &[LENT_V4]);
    rig.withdrawn();
    rig.allocation.network_changed(rig.now);
    let probe = rig.only(Method::Binding);
    rig.succeed(
        &probe,
        &[Attribute::XorMappedAddress(addr("198.51.100.200:1"))],
    );

    assert_eq!(rig.withdrawn(), [addr(LENT_V4)]);
    rig.lend(&["203.0.113.9:50001"]);
}
