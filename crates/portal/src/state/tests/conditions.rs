//! Access that depends on time and place. The clock begins on a Tuesday, at 22:13:20 UTC.

use super::*;
use crate::model::{Client, Locations};

const UNTIL_23: Duration = Duration::from_secs(46 * 60 + 40);

const OFFICE: &str = "203.0.113.7";
const HOME: &str = "198.51.100.7";

#[test]
fn a_client_sees_and_gets_only_what_conforms() {
    let mut portal = with_lan(&["{ remote_ip = [\"203.0.113.0/24\"] }"]);
    let (gateway, _) = portal.gateway("hq", "gw");
    let (bob, resources) = client_at(&mut portal, "bob", HOME);
    assert_eq!(resources, [] as [&str; 0]);

    portal.ask(bob, "lan", &[]);
    assert_eq!(
        refusal(&mut portal, bob),
        ("forbidden".to_owned(), vec!["remote_ip".to_owned()])
    );
    portal.ask(bob, "wiki", &[]);
    assert_eq!(refusal(&mut portal, bob), ("not_found".to_owned(), vec![]));
    assert_eq!(portal.events(gateway), [] as [&str; 0]);

    let (bob, resources) = client_at(&mut portal, "bob", &format!("::ffff:{OFFICE}"));
    assert_eq!(resources, ["lan"]);
    portal.grant(bob, "lan", gateway);
    let grant = portal.state.directory().grants().values().next().unwrap();
    assert_eq!(grant.remote_ip, Some(OFFICE.parse().unwrap()));
}

#[test]
fn all_that_is_against_it_is_told_once() {
    let mut portal = with_lan(&[
        "{ remote_ip = [\"203.0.113.0/24\"] }, { weekdays = \"mon\" }, { hours = \"08:00-09:00\" }",
        "{ verified = true, country = [\"DE\"] }, { not_remote_ip = [\"198.51.100.0/24\"] }",
    ]);
    let (bob, _) = client_at(&mut portal, "bob", HOME);

    portal.ask(bob, "lan", &[]);

    let all = [
        "remote_ip",
        "remote_ip_location_region",
        "client_verified",
        "current_utc_datetime",
    ];
    assert_eq!(
        refusal(&mut portal, bob),
        ("forbidden".to_owned(), all.map(str::to_owned).to_vec())
    );
}

#[test]
fn who_moves_loses_what_depends_on_the_place() {
    let mut portal = with_lan(&["{ remote_ip = [\"203.0.113.0/24\"] }"]);
    let (gateway, _) = portal.gateway("hq", "gw");
    let (bob, _) = client_at(&mut portal, "bob", OFFICE);
    portal.grant(bob, "lan", gateway);

    portal.disconnect(bob);
    portal.pass(Duration::from_secs(30));
    portal.apply(&file(&["{ remote_ip = [\"203.0.113.7\"] }"]));
    assert_eq!(
        portal.events(gateway),
        [] as [&str; 0],
        "it counts as where it was"
    );

    client_at(&mut portal, "bob", HOME);
    portal.only(gateway, "reject_access");
    assert_eq!(portal.state.directory().grants().len(), 0);

    let (bob, _) = client_at(&mut portal, "bob", OFFICE);
    portal.grant(bob, "lan", gateway);
    let token = portal.client_token("bob");
    portal.join(&device(Role::Client, &token, "bob", 1));
    portal.only(gateway, "reject_access");
}

#[test]
fn a_client_that_is_away_is_judged_by_where_it_was() {
    let mut portal = with_lan(&["{ remote_ip = [\"203.0.113.0/24\"] }"]);
    let (gateway, _) = portal.gateway("hq", "gw");
    let (bob, _) = client_at(&mut portal, "bob", OFFICE);
    portal.grant(bob, "lan", gateway);
    portal.disconnect(bob);

    portal.apply(&file(&["{ not_remote_ip = [\"203.0.113.0/24\"] }"]));

    portal.only(gateway, "reject_access");
    assert_eq!(portal.state.directory().grants().len(), 0);
}

#[test]
fn a_window_closes_on_the_second_and_opens_within_a_minute() {
    let mut portal =
        with_lan(&["{ weekdays = \"tue\", hours = \"20:00-23:00\" }, { weekdays = \"mon-tue\" }"]);
    let (gateway, _) = portal.gateway("hq", "gw");
    let (bob, resources) = client_at(&mut portal, "bob", OFFICE);
    assert_eq!(resources, ["lan"]);
    let end = portal.unix + UNTIL_23.as_secs();
    portal.ask(bob, "lan", &[]);
    let create = portal.only(gateway, "create_authorization");
    assert_eq!(create["expires_at"], end);
    acknowledge(&mut portal, gateway, &create);
    assert_eq!(portal.events(bob), ["authorization_created"]);

    pass(&mut portal, bob, UNTIL_23 - Duration::from_secs(1));
    assert_eq!(portal.events(bob), [] as [&str; 0]);
    portal.pass(Duration::from_secs(1));
    portal.only(bob, "resource_deleted");
    portal.ask(bob, "lan", &[]);
    let refused = refusal(&mut portal, bob);
    assert_eq!(
        refused,
        (
            "forbidden".to_owned(),
            vec!["current_utc_datetime".to_owned()]
        )
    );
    assert_eq!(portal.events(gateway), [] as [&str; 0], "it knows the end");

    // Six days and 21 hours later it opens again.
    let until_tuesday = Duration::from_secs((6 * 24 + 21) * 3600);
    portal.jump(until_tuesday.as_secs().try_into().unwrap());
    portal.pass(Duration::from_secs(59));
    assert_eq!(
        portal.only(bob, "resource_created_or_updated")["name"],
        "lan"
    );
}

#[test]
fn what_goes_by_time_is_told_before_what_comes() {
    let more = "[[policy]]\ngroup = \"guests\"\nresource = \"wiki\"\nconditions = [ { hours = \"23:00-24:00\" } ]";
    let mut portal = Portal::with(&format!(
        "{}\n{more}",
        file(&["{ hours = \"00:00-23:00\" }"])
    ));
    let (bob, resources) = client_at(&mut portal, "bob", OFFICE);
    assert_eq!(resources, ["lan"]);

    pass(&mut portal, bob, UNTIL_23);

    assert_eq!(
        portal.events(bob),
        ["resource_deleted", "resource_created_or_updated"]
    );
}

#[test]
fn the_policy_that_lasts_longest_decides_and_the_token_ends_it() {
    let mut portal = with_lan(&["{ hours = \"22:00-22:30\" }", "{ hours = \"22:00-23:00\" }"]);
    let (gateway, _) = portal.gateway("hq", "gw");
    let (bob, _) = client_at(&mut portal, "bob", OFFICE);
    portal.ask(bob, "lan", &[]);
    let create = portal.only(gateway, "create_authorization");
    assert_eq!(create["expires_at"], portal.unix + UNTIL_23.as_secs());

    let actor = portal.state.directory().actor_named("bob").unwrap().id;
    let token_ends_at = portal.unix + 60;
    let token = portal
        .token(TokenKind::Client(actor), Some(token_ends_at))
        .1;
    let bob = portal.join(&device(Role::Client, &token, "phone", 3));
    portal.messages(bob);
    portal.ask(bob, "lan", &[]);
    let create = portal.only(gateway, "create_authorization");
    assert_eq!(create["expires_at"], token_ends_at);
}

#[test]
fn a_later_end_is_told_at_once_and_only_to_the_gateway() {
    let mut portal = with_lan(&["{ hours = \"22:00-23:00\" }"]);
    let (gateway, _) = portal.gateway("hq", "gw");
    let (bob, _) = client_at(&mut portal, "bob", OFFICE);
    portal.grant(bob, "lan", gateway);

    portal.apply(&file(&[""]));

    let create = portal.only(gateway, "create_authorization");
    assert_eq!(create["expires_at"], Value::Null);
    acknowledge(&mut portal, gateway, &create);
    portal.pass(Duration::from_secs(20));
    assert_eq!(portal.events(bob), [] as [&str; 0]);
    pass(&mut portal, bob, UNTIL_23 + Duration::from_secs(60));
    assert_eq!(portal.events(bob), [] as [&str; 0]);
    assert_eq!(portal.events(gateway), [] as [&str; 0]);
    assert_eq!(portal.state.directory().grants().len(), 1);
}

#[test]
fn a_gateway_that_does_not_acknowledge_a_later_end_keeps_the_grant() {
    let mut portal = with_lan(&["{ hours = \"22:00-23:00\" }"]);
    let (gateway, _) = portal.gateway("hq", "gw");
    let (bob, _) = client_at(&mut portal, "bob", OFFICE);
    portal.grant(bob, "lan", gateway);

    portal.apply(&file(&[""]));
    portal.only(gateway, "create_authorization");
    portal.pass(Duration::from_secs(20));

    assert_eq!(portal.events(bob), [] as [&str; 0]);
    assert_eq!(portal.events(gateway), [] as [&str; 0]);
    assert_eq!(portal.state.directory().grants().len(), 1);
}

#[test]
fn an_earlier_end_is_told_when_it_comes() {
    let mut portal = with_lan(&[""]);
    let (gateway, _) = portal.gateway("hq", "gw");
    let (bob, _) = client_at(&mut portal, "bob", OFFICE);
    portal.grant(bob, "lan", gateway);

    portal.apply(&file(&["{ hours = \"22:00-23:00\" }"]));
    assert_eq!(portal.events(gateway), [] as [&str; 0]);
    pass(&mut portal, bob, UNTIL_23 - Duration::from_secs(1));
    assert_eq!(portal.events(gateway), [] as [&str; 0]);
    portal.pass(Duration::from_secs(1));

    portal.only(gateway, "reject_access");
    portal.only(bob, "resource_deleted");
    assert_eq!(portal.state.directory().grants().len(), 0);
}

#[test]
fn an_end_that_moves_back_before_it_came_is_forgotten() {
    let mut portal = with_lan(&[""]);
    let (gateway, id) = portal.gateway("hq", "gw");
    let (bob, _) = client_at(&mut portal, "bob", OFFICE);
    portal.grant(bob, "lan", gateway);
    portal.apply(&file(&["{ hours = \"22:00-23:00\" }"]));

    // A gateway that comes back learns the end from its init.
    portal.disconnect(gateway);
    let (gateway, again) = portal.gateway("hq", "gw");
    assert_eq!(again, id);
    pass(&mut portal, bob, UNTIL_23);

    assert_eq!(portal.events(gateway), [] as [&str; 0]);
    portal.only(bob, "resource_deleted");
}

#[test]
fn an_end_that_is_lifted_while_the_gateway_is_away_does_not_come() {
    let mut portal = with_lan(&[""]);
    let (gateway, _) = portal.gateway("hq", "gw");
    let (bob, _) = client_at(&mut portal, "bob", OFFICE);
    portal.grant(bob, "lan", gateway);

    portal.apply(&file(&["{ hours = \"22:00-23:00\" }"]));
    portal.disconnect(gateway);
    portal.apply(&file(&[""]));
    pass(&mut portal, bob, UNTIL_23 + Duration::from_secs(1));

    assert_eq!(portal.state.directory().grants().len(), 1);
    assert_eq!(portal.events(bob), [] as [&str; 0]);
}

#[test]
fn a_client_that_changes_gateways_is_not_held_up_by_a_later_end() {
    let mut portal = with_lan(&["{ hours = \"22:00-23:00\" }"]);
    let (one, one_id) = portal.gateway("hq", "one");
    let (bob, _) = client_at(&mut portal, "bob", OFFICE);
    portal.grant(bob, "lan", one);
    let (two, two_id) = portal.gateway("hq", "two");
    portal.ask(bob, "lan", &[two_id]);
    let asked = portal.only(two, "create_authorization");

    portal.apply(&file(&[""]));
    assert_eq!(
        portal.events(one),
        [] as [&str; 0],
        "not before it is known where bob goes"
    );
    let again = portal.only(two, "create_authorization");
    assert_eq!(
        (&again["ref"], &again["expires_at"]),
        (&asked["ref"], &Value::Null)
    );
    acknowledge(&mut portal, two, &again);
    assert_eq!(portal.events(bob), ["authorization_created"]);

    pass(&mut portal, bob, Duration::from_secs(60));
    let create = portal.only(one, "create_authorization");
    assert_eq!(create["expires_at"], Value::Null);
    let ends: Vec<_> = (portal.state.directory().grants().iter())
        .map(|(key, grant)| (key.gateway, grant.expires_at))
        .collect();
    assert!(
        ends.contains(&(one_id, None)) && ends.contains(&(two_id, None)),
        "{ends:?}"
    );
}

#[test]
fn another_policy_takes_over() {
    let mut portal = with_lan(&["{ remote_ip = [\"203.0.113.0/24\"] }"]);
    let (gateway, _) = portal.gateway("hq", "gw");
    let (bob, _) = client_at(&mut portal, "bob", OFFICE);
    portal.grant(bob, "lan", gateway);
    let policy = |portal: &Portal| {
        portal
            .state
            .directory()
            .grants()
            .values()
            .next()
            .unwrap()
            .policy
    };
    let first = policy(&portal);

    portal.apply(&file(&[
        "{ remote_ip = [\"192.0.2.0/24\"] }",
        "{ remote_ip = [\"203.0.113.7\"] }",
    ]));

    assert_eq!(portal.events(gateway), [] as [&str; 0]);
    assert_eq!(portal.events(bob), [] as [&str; 0]);
    let policies = portal.state.directory().policies();
    assert_ne!(policy(&portal), first);
    assert_eq!(
        policies[&first].conditions.len(),
        1,
        "the first was kept and changed"
    );
}

#[test]
fn a_policy_that_is_no_better_changes_nothing() {
    let mut portal = with_lan(&["{ remote_ip = [\"203.0.113.0/24\"] }"]);
    let (gateway, _) = portal.gateway("hq", "gw");
    let (bob, _) = client_at(&mut portal, "bob", OFFICE);
    portal.grant(bob, "lan", gateway);
    let grants = portal.state.directory().grants().clone();

    let same = [
        "203.0.113.0/24",
        "203.0.113.0/25",
        "203.0.113.0/26",
        "203.0.113.0/27",
    ];
    let lists = same.map(|network| format!("{{ remote_ip = [\"{network}\"] }}"));
    portal.apply(&file(&lists.each_ref().map(String::as_str)));

    assert_eq!(portal.state.directory().grants(), &grants);
    assert_eq!(portal.events(gateway), [] as [&str; 0]);
}

#[test]
fn a_device_is_let_in_while_it_is_verified() {
    let mut portal = with_lan(&["{ verified = true }"]);
    let (gateway, _) = portal.gateway("hq", "gw");
    let (bob, resources) = client_at(&mut portal, "bob", OFFICE);
    assert_eq!(resources, [] as [&str; 0]);

    verify(&mut portal, bob, true);
    portal.only(bob, "resource_created_or_updated");
    portal.grant(bob, "lan", gateway);
    let (bob, resources) = client_at(&mut portal, "bob", OFFICE);
    assert_eq!(resources, ["lan"], "it stays verified");

    verify(&mut portal, bob, false);
    portal.only(gateway, "reject_access");
    portal.only(bob, "resource_deleted");
}

#[test]
fn a_file_says_where_addresses_are() {
    let mut portal = with_lan(&["{ country = [\"DE\"] }"]);
    let (gateway, _) = portal.gateway("hq", "gw");
    let (bob, resources) = client_at(&mut portal, "bob", OFFICE);
    assert_eq!(resources, [] as [&str; 0]);

    locate(&mut portal, "203.0.113.0/24,DE");
    portal.only(bob, "resource_created_or_updated");
    portal.grant(bob, "lan", gateway);

    let locations = Locations::parse("203.0.113.0/24,DE").unwrap();
    let (now, unix, stored) = (portal.now, portal.unix, portal.stored.clone());
    let mut again = State::with_locations(now, unix, stored.clone(), [4; 32], locations);
    assert_eq!(again.poll_edit(), None, "grants outlast a restart");
    let mut lost = State::new(now, unix, stored, [4; 32]);
    assert!(matches!(lost.poll_edit(), Some(Edit::DropGrant(_))));

    locate(&mut portal, "203.0.113.0/24,DE\n203.0.113.7,FR");
    portal.only(gateway, "reject_access");
    portal.only(bob, "resource_deleted");
}

/// `bob` may reach `lan` under any of these lists of conditions.
fn file(alternatives: &[&str]) -> String {
    let former = "[[policy]]\ngroup = \"guests\"\nresource = \"lan\"\n";
    assert!(FILE.contains(former));
    let policies = alternatives
        .iter()
        .map(|list| format!("{former}conditions = [ {list} ]\n"));

    FILE.replace(former, &policies.collect::<String>())
}

fn with_lan(alternatives: &[&str]) -> Portal {
    Portal::with(&file(alternatives))
}

/// The only client of `actor` connects from `address`. Returns what it sees.
fn client_at(portal: &mut Portal, actor: &str, address: &str) -> (Peer, Vec<String>) {
    let token = portal.client_token(actor);
    let connect = Connect {
        remote: Some(address.parse().unwrap()),
        ..device(Role::Client, &token, actor, 1)
    };
    let peer = portal.join(&connect);
    let messages = portal.messages(peer);
    let (event, init) = messages.last().unwrap();
    assert_eq!(event, "init");
    let resources = init["resources"].as_array().unwrap().iter();
    let names = resources.map(|resource| resource["name"].as_str().unwrap().to_owned());

    (peer, names.collect())
}

/// Lets time pass, in which the peers of `portal` stay alive.
fn pass(portal: &mut Portal, client: Peer, time: Duration) {
    let mut left = time;
    while left > Duration::ZERO {
        let step = left.min(Duration::from_secs(30));
        let sockets: Vec<SocketId> = portal.state.sockets.keys().copied().collect();
        assert!(sockets.contains(&client.socket));
        for socket in sockets {
            portal.state.handle_pong(portal.now, portal.unix, socket);
        }
        portal.pass(step);
        left -= step;
    }
}

fn acknowledge(portal: &mut Portal, gateway: Peer, create: &Value) {
    portal.say(
        gateway,
        "authorization_created",
        json!({"ref": create["ref"]}),
    );
    let reply = portal.only(gateway, "phx_reply");
    assert_eq!(reply["status"], "ok");
}

fn refusal(portal: &mut Portal, client: Peer) -> (String, Vec<String>) {
    let failed = portal.only(client, "authorization_creation_failed");
    let violated = failed["violated_properties"].as_array().unwrap().iter();

    (
        failed["reason"].as_str().unwrap().to_owned(),
        violated
            .map(|name| name.as_str().unwrap().to_owned())
            .collect(),
    )
}

fn verify(portal: &mut Portal, client: Peer, verified: bool) {
    portal.settle();
    let id = portal.client_id(client);
    let client = portal.state.directory().clients()[&id].clone();
    portal.edit(&[Edit::PutClient(Client { verified, ..client })]);
}

fn locate(portal: &mut Portal, text: &str) {
    let locations = Locations::parse(text).unwrap();
    portal
        .state
        .set_locations(portal.now, portal.unix, locations);
}
