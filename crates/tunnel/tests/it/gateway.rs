use std::time::{Duration, Instant};

use connlib_tunnel::PortalState;
use connlib_tunnel::gateway::{Event, Gateway};
use connlib_wire::portal::gateway::{FromPortal, ToPortal};

use crate::{CLIENT, KEY, LAN, RELAYS, SETTINGS, UNIX, raw, start, udp};

fn say(gateway: &mut Gateway, now: Instant, event: &str, payload: &str) {
    let message = FromPortal::parse(event, &raw(payload)).unwrap();
    gateway.handle_message(now, message);
}

fn init(gateway: &mut Gateway, now: Instant, authorizations: &str) {
    let interface = r#"{"ipv4":"100.64.0.9","ipv6":"fd00:2021:1111::9"}"#;
    let payload = format!(
        r#"{{"interface":{interface},"relays":{RELAYS},"authorizations":[{authorizations}]}}"#
    );
    say(gateway, now, "init", &payload);
}

fn joined() -> (Gateway, Instant) {
    let now = start();
    let mut gateway = Gateway::new(now, [1; 32], SETTINGS);
    gateway.handle_portal_state(now, PortalState::Joined);
    init(&mut gateway, now, "");
    (gateway, now)
}

/// Grants access to 10.20.0.0/16, until some seconds from now.
fn authorize(gateway: &mut Gateway, now: Instant, resource: &str, until: Option<u64>) {
    let until = until.map_or_else(
        || "null".to_owned(),
        |secs| (UNIX.as_secs() + secs).to_string(),
    );
    authorize_until(gateway, now, resource, &until);
}

/// The same until a Unix time, as it is written.
fn authorize_until(gateway: &mut Gateway, now: Instant, resource: &str, until: &str) {
    let credentials =
        |name: &str| format!(r#"{{"username":"{name}","password":"password of {name}"}}"#);
    let payload = format!(
        r#"{{"ref":"r1","resource":{{"type":"cidr","id":"{resource}","name":"lan","address":"10.20.0.0/16","filters":[]}},
            "client":{{"id":"{CLIENT}","public_key":"{KEY}","preshared_key":"{KEY}","ipv4":"100.64.0.1","ipv6":"fd00:2021:1111::1"}},
            "client_ice_credentials":{},"gateway_ice_credentials":{},"expires_at":{until}}}"#,
        credentials("clnt"),
        credentials("gate"),
    );
    say(gateway, now, "create_authorization", &payload);
}

fn clients(gateway: &Gateway, now: Instant) -> usize {
    gateway
        .status(now)
        .resources
        .iter()
        .map(|resource| resource.clients.len())
        .sum()
}

#[test]
fn access_is_acknowledged_once_link_and_grant_are_there() {
    let (mut gateway, now) = joined();
    authorize(&mut gateway, now, LAN, None);

    assert_eq!(
        (gateway.status(now).peers.len(), clients(&gateway, now)),
        (1, 1)
    );
    let Some(ToPortal::AuthorizationCreated(ack)) = gateway.poll_message() else {
        panic!("no acknowledgement");
    };
    assert_eq!(ack.reference, "r1");
}

#[test]
fn without_a_relay_access_is_not_acknowledged() {
    let now = start();
    let mut gateway = Gateway::new(now, [1; 32], SETTINGS);
    gateway.handle_portal_state(now, PortalState::Joined);
    authorize(&mut gateway, now, LAN, None);

    assert!(matches!(
        gateway.poll_message(),
        Some(ToPortal::NoRelays(_))
    ));
    assert!(gateway.poll_message().is_none());
}

#[test]
fn a_grant_ends_at_its_instant_and_the_last_one_ends_the_link() {
    let (mut gateway, now) = joined();
    authorize(&mut gateway, now, LAN, Some(30));
    while gateway.poll_message().is_some() {}

    let end = now + Duration::from_secs(30);
    gateway.handle_timeout(end - Duration::from_millis(1));
    assert_eq!(clients(&gateway, now), 1);
    gateway.handle_timeout(end);
    assert_eq!(
        (clients(&gateway, now), gateway.status(now).peers.len()),
        (0, 0)
    );
}

#[test]
fn a_new_grant_for_the_same_resource_moves_the_end() {
    let (mut gateway, now) = joined();
    authorize(&mut gateway, now, LAN, Some(2));
    authorize(&mut gateway, now, LAN, Some(4));
    let later = now + Duration::from_secs(3);
    gateway.handle_timeout(later);
    assert_eq!(clients(&gateway, now), 1);

    authorize(&mut gateway, later, LAN, Some(0));
    gateway.handle_timeout(later);
    assert_eq!(clients(&gateway, now), 0, "an end in the past is an end");
}

/// As portals of the older generation say it.
#[test]
fn the_end_of_a_grant_can_be_moved_alone() {
    let (mut gateway, now) = joined();
    authorize(&mut gateway, now, LAN, Some(2));
    let move_to = |gateway: &mut Gateway, now, resource: &str, secs: u64| {
        let at = UNIX.as_secs() + secs;
        let moved =
            format!(r#"{{"client_id":"{CLIENT}","resource_id":"{resource}","expires_at":{at}}}"#);
        say(gateway, now, "access_authorization_expiry_updated", &moved);
    };
    move_to(&mut gateway, now, LAN, 4);
    move_to(&mut gateway, now, CLIENT, 1);
    let later = now + Duration::from_secs(3);
    gateway.handle_timeout(later);
    assert_eq!(clients(&gateway, now), 1);

    move_to(&mut gateway, later, LAN, 3);
    assert_eq!(clients(&gateway, now), 0);
}

#[test]
fn rejecting_one_of_two_keeps_the_link_and_the_last_ends_it() {
    let (mut gateway, now) = joined();
    let other = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a12";
    authorize(&mut gateway, now, LAN, None);
    authorize(&mut gateway, now, other, None);
    let reject = |id: &str| format!(r#"{{"client_id":"{CLIENT}","resource_id":"{id}"}}"#);

    say(&mut gateway, now, "reject_access", &reject(LAN));
    assert_eq!(gateway.status(now).peers.len(), 1);
    say(&mut gateway, now, "reject_access", &reject(other));
    assert_eq!(gateway.status(now).peers.len(), 0);
}

#[test]
fn init_revokes_what_it_does_not_list() {
    let (mut gateway, now) = joined();
    authorize(&mut gateway, now, LAN, None);
    let listed = format!(r#"{{"client_id":"{CLIENT}","resource_id":"{LAN}","expires_at":null}}"#);
    init(&mut gateway, now, &listed);
    assert_eq!(clients(&gateway, now), 1);

    // Left out entirely: the forerunner once kept such a client.
    init(&mut gateway, now, "");
    assert_eq!(clients(&gateway, now), 0);
}

#[test]
fn what_was_revoked_while_the_portal_was_away_ends_and_the_rest_stays() {
    let (mut gateway, now) = joined();
    let kept = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a12";
    authorize(&mut gateway, now, LAN, None);
    authorize(&mut gateway, now, kept, None);

    gateway.handle_portal_state(now, PortalState::Away);
    let later = now + Duration::from_secs(1);
    gateway.handle_timeout(later);
    assert_eq!(clients(&gateway, later), 2);
    gateway.handle_portal_state(later, PortalState::Joined);
    let listed = format!(r#"{{"client_id":"{CLIENT}","resource_id":"{kept}","expires_at":null}}"#);
    // Said twice, it says no more.
    for _ in 0..2 {
        init(&mut gateway, later, &listed);
        let status = gateway.status(later);
        let ids: Vec<_> = status
            .resources
            .iter()
            .map(|it| it.id.to_string())
            .collect();
        assert_eq!((ids, status.peers.len()), (vec![kept.to_owned()], 1));
    }
}

#[test]
fn packets_from_the_network_reach_only_whom_they_are_for() {
    let (mut gateway, now) = joined();
    authorize(&mut gateway, now, LAN, None);
    let dropped = |gateway: &Gateway| gateway.status(now).dropped_from_tun;

    // Each of these is refused before the link is even asked.
    for (source, destination) in [
        ("10.20.0.1", "100.64.0.2"),
        ("10.21.0.1", "100.64.0.1"),
        ("100.64.0.2", "100.64.0.1"),
        ("10.20.0.1", "8.8.8.8"),
    ] {
        let before = dropped(&gateway);
        gateway.handle_packet(now, &udp(source, destination));
        assert_eq!(dropped(&gateway), before + 1, "{source} to {destination}");
    }
}

#[test]
fn the_interface_is_told_once() {
    let (mut gateway, now) = joined();
    assert!(matches!(
        gateway.poll_event(),
        Some(Event::InterfaceChanged(_))
    ));
    init(&mut gateway, now, "");
    assert!(gateway.poll_event().is_none());
}

#[test]
fn grants_of_any_time_end_when_they_say_or_in_a_year() {
    for (at, lasts) in [
        (0, false),
        (UNIX.as_secs() - 1, false),
        (UNIX.as_secs(), false),
        (UNIX.as_secs() + 60, true),
        (u64::from(u32::MAX), true),
        (i64::MAX as u64, true),
        (u64::MAX, true),
    ] {
        let (mut gateway, now) = joined();
        let ahead = i128::from(at) - i128::from(UNIX.as_secs());
        authorize_until(&mut gateway, now, LAN, &at.to_string());
        gateway.handle_timeout(now);
        assert_eq!(clients(&gateway, now), usize::from(lasts), "{at}");
        if lasts && ahead > 60 {
            gateway.handle_timeout(now + Duration::from_secs(60));
            assert_eq!(clients(&gateway, now), 1, "{at}");
        }
        // No deadline is later than can be counted.
        let _ = gateway.poll_timeout();
    }
}

#[test]
fn what_is_said_of_unknown_grants_and_resources_changes_nothing() {
    let (mut gateway, now) = joined();
    authorize(&mut gateway, now, LAN, None);
    let other = "4f2a1b0c-5d6e-4f70-8192-a3b4c5d6e7f8";
    for (client, resource) in [(CLIENT, other), (other, LAN), (other, other)] {
        let rejected = format!(r#"{{"client_id":"{client}","resource_id":"{resource}"}}"#);
        say(&mut gateway, now, "reject_access", &rejected);
    }
    let updated = format!(
        r#"{{"type":"cidr","id":"{other}","name":"n","address":"10.0.0.0/8","filters":[]}}"#
    );
    say(&mut gateway, now, "resource_updated", &updated);
    // The same id, of another type: its filters don't become the network's.
    let updated = format!(r#"{{"type":"internet","id":"{LAN}"}}"#);
    say(&mut gateway, now, "resource_updated", &updated);
    gateway.handle_timeout(now);
    let resources = gateway.status(now).resources;
    assert_eq!((resources.len(), clients(&gateway, now)), (1, 1));
}
