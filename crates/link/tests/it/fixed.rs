//! Peers without ICE, relays and portal: plain WireGuard.

use std::time::Duration;

use connlib_link::{FixedPeer, NotSent, UpsertError};
use connlib_wire::key::{PresharedKey, PublicKey};
use zeroize::Zeroizing;

use crate::lan::{COOKIE, DATA, INITIATION, Lan, RESPONSE, Sent, addr, id, key, peer};
use crate::world::packet;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_packet_that_waits_for_the_handshake_arrives_whoever_speaks_first() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut lan = Lan::pair();
        assert_eq!(lan.try_send(from, to, b"a"), Err(NotSent::Waiting));
        lan.run_for(SECOND);
        assert_eq!(lan.try_send(to, from, b"b"), Ok(()));
        lan.run_for(SECOND);

        assert_eq!(lan.hosts[to].received, [b"a"]);
        assert_eq!(lan.hosts[from].received, [b"b"]);
    }
}

#[test]
fn both_ends_may_speak_first_at_once() {
    let mut lan = Lan::pair();
    for n in 0..100_u8 {
        lan.send(0, 1, &[n]);
        lan.send(1, 0, &[n]);
    }
    lan.run_for(10 * SECOND);

    let expected: Vec<_> = (0..100_u8).map(|n| vec![n]).collect();
    assert_eq!(lan.hosts[0].received, expected);
    assert_eq!(lan.hosts[1].received, expected);
}

#[test]
fn a_peer_without_an_endpoint_is_answered_where_it_was_heard() {
    let mut lan = Lan::new(2);
    lan.add(0, 1, peer(1));
    let nowhere = FixedPeer {
        endpoint: None,
        ..peer(0)
    };
    lan.add(1, 0, nowhere);
    assert_eq!(lan.try_send(1, 0, b"lost"), Err(NotSent::NotConnected));

    lan.send(0, 1, b"a");
    lan.run_for(SECOND);
    lan.send(1, 0, b"b");
    lan.run_for(SECOND);
    assert_eq!(lan.hosts[1].received, [b"a"]);
    assert_eq!(lan.hosts[0].received, [b"b"]);
}

#[test]
fn new_keys_are_agreed_under_traffic_without_a_loss() {
    let mut lan = Lan::pair();
    let mut sent = Vec::new();
    for n in 0..10_000_u32 {
        sent.push(n.to_be_bytes().to_vec());
        lan.send(0, 1, &n.to_be_bytes());
        lan.send(1, 0, &n.to_be_bytes());
        lan.run_for(SECOND / 20);
    }
    lan.run_for(SECOND);

    assert_eq!(lan.hosts[0].received, sent);
    assert_eq!(lan.hosts[1].received, sent);
    let initiations = lan.trace.iter().filter(|sent| sent.bytes[0] == INITIATION);
    let count = initiations.count();
    assert!((5..=7).contains(&count), "{count} in 500 s");
}

#[test]
fn a_peer_is_where_its_latest_datagram_came_from() {
    let mut lan = Lan::connected();
    let elsewhere = "198.51.100.77:4000".parse().unwrap();
    lan.hosts[0].addr = elsewhere;
    // It knows only when nothing is answered that its old address is gone.
    for n in 0..30_u8 {
        lan.send(0, 1, &[n]);
        lan.run_for(SECOND);
    }
    lan.send(0, 1, b"here");
    lan.run_for(SECOND);
    lan.send(1, 0, b"found");
    lan.run_for(SECOND);

    assert_eq!(lan.hosts[1].received.last().unwrap(), b"here");
    assert_eq!(lan.hosts[0].received, [b"found"]);
    assert_eq!(lan.trace.last().unwrap().to, elsewhere);
}

#[test]
fn one_data_datagram_from_another_address_is_enough_to_move() {
    let mut lan = Lan::connected();
    lan.send(0, 1, b"moved");
    let mut moved = lan.trace.last().unwrap().clone();
    assert_eq!(moved.bytes[0], DATA);
    // A translator in between has another idea of the sender's address.
    moved.from = "198.51.100.77:4000".parse().unwrap();
    lan.deliver(&moved);
    lan.send(1, 0, b"answer");

    assert_eq!(lan.hosts[1].received.last().unwrap(), b"moved");
    assert_eq!(lan.trace.last().unwrap().to, moved.from);
}

#[test]
fn forged_and_replayed_datagrams_move_nobody() {
    let mut lan = Lan::connected();
    lan.send(0, 1, b"data");
    lan.run_for(SECOND);
    let recorded = lan.trace.clone();
    for sent in recorded.iter().filter(|sent| sent.to == addr(1)) {
        for flip in [0, 0x20] {
            let mut bytes = sent.bytes.clone();
            *bytes.last_mut().unwrap() ^= flip;
            let from = "198.51.100.77:4000".parse().unwrap();
            let copy = Sent {
                from,
                bytes,
                ..sent.clone()
            };
            lan.deliver(&copy);
        }
    }
    lan.send(1, 0, b"answer");

    assert_eq!(lan.trace.last().unwrap().to, addr(0));
}

#[test]
fn who_is_not_configured_gets_no_answer() {
    let mut lan = Lan::new(2);
    lan.add(0, 1, peer(1));
    lan.send(0, 1, b"let me in");
    lan.run_for(20 * SECOND);

    assert!(lan.hosts[1].received.is_empty());
    assert!(lan.trace.iter().all(|sent| sent.from == addr(0)));
    assert!(lan.hosts[1].links.stats().rejected_datagrams >= 3);
}

#[test]
fn another_preshared_key_makes_no_session() {
    let mut lan = Lan::new(2);
    lan.add(0, 1, peer(1));
    let other = FixedPeer {
        preshared_key: Some(PresharedKey::new([8; 32])),
        ..peer(0)
    };
    lan.add(1, 0, other);
    lan.send(0, 1, b"secret");
    lan.run_for(20 * SECOND);
    assert!(lan.hosts[1].received.is_empty());

    // Described anew, it gets another chance.
    lan.add(1, 0, peer(0));
    lan.run_for(20 * SECOND);
    assert_eq!(lan.hosts[1].received, [b"secret"]);
}

#[test]
fn a_key_that_is_none_is_refused() {
    let mut lan = Lan::new(1);
    let none = FixedPeer {
        public_key: PublicKey([0; 32]),
        ..peer(1)
    };
    let now = lan.now;
    let refused = lan.hosts[0].links.add_fixed(now, id(1), none);

    assert_eq!(refused, Err(UpsertError::InvalidKey));
    assert!(!lan.hosts[0].links.contains(id(1)));
}

#[test]
fn a_silent_peer_is_asked_for_ninety_seconds_and_again_with_the_next_packet() {
    let mut lan = Lan::pair();
    lan.dark.insert(addr(1));
    for n in 0..200_u8 {
        lan.send(0, 1, &[n]);
    }
    lan.run_for(1_000 * SECOND);
    let asked = lan.times(INITIATION, addr(0));
    assert!((16..=19).contains(&asked.len()), "{asked:?}");
    assert!(asked.last().unwrap() < &(95 * SECOND), "{asked:?}");
    assert_eq!(
        lan.hosts[0].links.poll_timeout(),
        None,
        "nothing left to do"
    );

    for n in 0..200_u8 {
        lan.send(0, 1, &[n]);
    }
    lan.run_for(12 * SECOND);
    lan.dark.clear();
    lan.run_for(6 * SECOND);
    // As many as may wait, and none of those that were given up.
    let newest: Vec<_> = (72..200_u8).map(|n| vec![n]).collect();
    assert_eq!(lan.hosts[1].received, newest);
}

#[test]
fn a_peer_that_was_away_for_long_is_reached_soon_after() {
    // Long enough for the session to be too old to send by, for it to end, and for handshakes to be given up.
    for away in [60, 171, 178, 185, 400, 2_000] {
        let mut lan = Lan::connected();
        lan.dark.insert(addr(1));
        for _ in 0..away {
            lan.send(0, 1, b"into the dark");
            lan.run_for(SECOND);
        }
        lan.dark.clear();
        for n in 0..30_u8 {
            lan.send(0, 1, &[n]);
            lan.run_for(SECOND);
        }
        assert_eq!(lan.hosts[1].received.last().unwrap(), &[29], "{away} s");
    }
}

#[test]
fn packets_wait_for_new_keys_once_the_old_ones_are_too_old_to_send_by() {
    let mut lan = Lan::connected();
    lan.run_for(115 * SECOND);
    lan.dark.insert(addr(1));
    // An initiator sends by a session for 170 s, and knows it for ten more.
    for n in 0..62_u8 {
        lan.send(0, 1, &[n]);
        lan.run_for(SECOND);
    }
    lan.dark.clear();
    lan.run_for(6 * SECOND);

    assert_eq!(lan.hosts[1].received.last().unwrap(), &[61]);
}

#[test]
fn a_peer_that_forgot_everything_is_reached_again() {
    for speaker in [0, 1] {
        let mut lan = Lan::connected();
        lan.restart(1, 0);
        let listener = 1 - speaker;
        for n in 0..30_u8 {
            lan.send(speaker, listener, &[n]);
            lan.run_for(SECOND);
        }
        assert_eq!(lan.hosts[listener].received.last().unwrap(), &[29]);
        lan.send(listener, speaker, b"answer");
        lan.run_for(SECOND);
        assert_eq!(lan.hosts[speaker].received.last().unwrap(), b"answer");
    }
}

#[test]
fn keepalives_hold_a_session_without_a_packet() {
    let mut lan = Lan::new(2);
    lan.dark.insert(addr(1));
    lan.add(1, 0, peer(0));
    let kept_alive = FixedPeer {
        keepalive: Some(25 * SECOND),
        ..peer(1)
    };
    lan.add(0, 1, kept_alive);
    // Nobody is there for longer than a handshake is repeated.
    lan.run_for(200 * SECOND);
    lan.dark.clear();
    lan.run_for(30 * SECOND);

    let begin = lan.now - lan.start;
    lan.run_for(2_500 * SECOND);
    let sent = lan.trace.iter().filter(|sent| sent.from == addr(0));
    let times: Vec<_> = sent.map(|sent| sent.at).filter(|at| *at >= begin).collect();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = gaps.max().unwrap();
    assert!(longest <= 26 * SECOND, "{longest:?}");
    lan.send(1, 0, b"through the firewall");
    lan.run_for(SECOND);
    assert_eq!(lan.hosts[0].received, [b"through the firewall"]);
}

#[test]
fn an_idle_link_moves_once_per_session() {
    let mut lan = Lan::connected();
    lan.run_for(2_000 * SECOND);
    let sent = lan.trace.len();
    lan.run_for(1_800 * SECOND);

    // Three datagrams make a session, which lasts for 180 s.
    let sent = lan.trace.len() - sent;
    assert!(sent <= 33, "{sent}");
}

#[test]
fn a_peer_that_sends_nothing_but_handshakes_does_not_shut_others_out() {
    let mut lan = Lan::new(3);
    lan.add(0, 1, peer(1));
    lan.add(0, 2, peer(2));
    let flooder = "192.0.2.2:51820".parse().unwrap();
    let mut flood = initiations(&lan);
    let mut sent = 0;
    for millisecond in 0..20_000_u64 {
        let initiation = flood(lan.now);
        lan.launch(flooder, addr(0), initiation);
        if millisecond == 5_000 {
            lan.add(2, 0, peer(0));
        }
        if millisecond >= 5_000 && millisecond % 100 == 0 {
            lan.send(2, 0, &[sent]);
            sent += 1;
        }
        lan.run_for(Duration::from_millis(1));
    }

    // The limit of sanstun: a hundred per second, and cookies beyond; ours: not more than two hundred in all.
    let to_flooder = |kind| {
        let answers = lan.trace.iter();
        answers
            .filter(|sent| sent.bytes[0] == kind && sent.to == flooder)
            .count()
    };
    assert!(to_flooder(RESPONSE) <= 2_200, "{}", to_flooder(RESPONSE));
    let cookies = to_flooder(COOKIE);
    assert!((1_800..=2_200).contains(&cookies), "{cookies}");
    let arrived: Vec<_> = (0..sent).map(|n| vec![n]).collect();
    lan.run_for(SECOND);
    assert_eq!(lan.hosts[0].received, arrived);
}

/// What someone sends who has a key that is known, and asks all the time.
fn initiations(lan: &Lan) -> impl FnMut(std::time::Instant) -> Vec<u8> + use<> {
    let seed = Zeroizing::new([77; 32]);
    let unix = Duration::from_secs(1_900_000_000);
    let secret = sanstun::StaticSecret::from(Zeroizing::new([2; 32]));
    let mut interface = sanstun::Interface::new(seed, lan.start, unix).with_static_private(secret);
    let of_target = sanstun::PublicKey::from(key(0).public_key().0);
    let config = sanstun::TunnelConfig::default()
        .with_preshared_key(sanstun::PresharedKey::from(Zeroizing::new([9; 32])));
    let mut tunnel = interface.new_tunnel(of_target, config, lan.start).unwrap();

    move |now| tunnel.restart_handshake(now).unwrap().to_vec()
}

#[test]
fn a_change_of_networks_keeps_fixed_peers_and_the_given_key() {
    let mut lan = Lan::connected();
    let now = lan.now;
    lan.hosts[0].links.reset(now);
    lan.hosts[0].addr = "198.51.100.77:4000".parse().unwrap();
    assert_eq!(lan.hosts[0].links.public_key(), key(0).public_key());

    lan.send(0, 1, b"from here");
    lan.run_for(SECOND);
    lan.send(1, 0, b"to there");
    lan.run_for(SECOND);
    assert_eq!(lan.hosts[1].received.last().unwrap(), b"from here");
    assert_eq!(lan.hosts[0].received, [b"to there"]);
}

#[test]
fn a_closed_link_takes_no_packet_and_says_no_goodbye() {
    let mut lan = Lan::connected();
    let sent = lan.trace.len();
    let now = lan.now;
    lan.hosts[0].links.close(now, id(1));
    let refused = lan.hosts[0].links.encapsulate(now, id(1), &packet(b"x"));
    lan.run_for(SECOND);

    assert_eq!(refused, Err(NotSent::UnknownPeer));
    assert_eq!(lan.trace.len(), sent);
}
