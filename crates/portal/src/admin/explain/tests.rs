use std::collections::BTreeSet;

use connlib_wire::id::GatewayId;

use super::*;
use crate::admin::{Answer, Request, Response};
use crate::audit::Who;
use crate::model::{Directory, Edit, Locations};
use crate::state::Presence;
use crate::tests::{World, ids};

const FILE: &str = r#"
[[site]]
name = "hq"
[[actor]]
name = "alice"
groups = ["staff", "admins"]
[[actor]]
name = "bob"
groups = ["guests"]
[[actor]]
name = "carol"
[[resource]]
name = "lan"
address = "10.20.0.0/16"
sites = ["hq"]
[[resource]]
name = "vault"
address = "10.30.0.1"
sites = ["hq"]
[[policy]]
group = "staff"
resource = "lan"
conditions = [ { weekdays = "mon-fri", hours = "08:00-18:00", timezone = "Europe/Berlin" }, { verified = true } ]
[[policy]]
group = "admins"
resource = "lan"
conditions = [ { remote_ip = ["203.0.113.0/24"] }, { country = ["DE"] } ]
"#;

/// Sunday 2026-01-04, 02:12 UTC.
const SUNDAY: u64 = 1_767_492_720;

/// Monday 2026-01-05, 10:00 UTC.
const MONDAY: u64 = 1_767_607_200;

#[test]
fn each_condition_that_fails_says_why() {
    let world = World::new(FILE);

    let explanation = ask(&world.directory, "alice", None, SUNDAY);

    assert!(!explanation.allowed);
    assert_eq!(explanation.reasons, [] as [&str; 0]);
    let [verdict] = &explanation.verdicts[..] else {
        panic!("{explanation:?}");
    };
    assert_eq!(
        (verdict.client, verdict.online, verdict.allowed),
        (None, false, false)
    );
    assert_eq!(verdict.decided_by, None);
    let failed: BTreeSet<&str> = (verdict.others.iter())
        .flat_map(|policy| &policy.failed)
        .map(String::as_str)
        .collect();
    let expected = [
        "weekdays mon-fri 08:00-18:00 Europe/Berlin: it is Sun 03:12 there",
        "verified: no admin marked the device as verified",
        "remote_ip 203.0.113.0/24: it is not known where the client connects from",
        "country DE: it is not known which country the client is in",
    ];
    assert_eq!(failed, BTreeSet::from(expected));

    let elsewhere = ask(&world.directory, "alice", Some("198.51.100.1"), SUNDAY);
    let failed: Vec<&String> = (elsewhere.verdicts[0].others.iter())
        .filter(|policy| policy.group == "admins")
        .flat_map(|policy| &policy.failed)
        .collect();
    assert_eq!(
        failed,
        [
            "remote_ip 203.0.113.0/24: the client connects from 198.51.100.1",
            "country DE: the client is in FR",
        ]
    );
}

#[test]
fn the_policy_that_decides_is_named_with_its_end() {
    let mut world = World::new(FILE);
    let id = ClientId(ids(1));
    world.put_client("alice", id);
    verify(&mut world, id);

    let explanation = ask(&world.directory, "alice", Some("203.0.113.9"), MONDAY);

    assert!(explanation.allowed);
    let verdict = &explanation.verdicts[0];
    assert_eq!((verdict.client, verdict.verified), (Some(id), true));
    assert_eq!(verdict.country, "DE".parse().ok());
    let decided_by = verdict.decided_by.as_ref().unwrap();
    assert_eq!(decided_by.group, "admins", "it lasts longer");
    assert_eq!(
        decided_by.conditions,
        ["remote_ip 203.0.113.0/24", "country DE"]
    );
    assert_eq!(verdict.until, None);
    let [staff] = &verdict.others[..] else {
        panic!("{verdict:?}");
    };
    assert!(staff.holds && staff.failed.is_empty());
    assert_eq!(staff.until, Some(MONDAY + 7 * 3600));

    let nowhere = ask(&world.directory, "alice", None, MONDAY);
    assert_eq!(nowhere.verdicts[0].until, Some(MONDAY + 7 * 3600));
    assert_eq!(
        nowhere.verdicts[0].decided_by.as_ref().unwrap().group,
        "staff"
    );
}

#[test]
fn clients_that_are_connected_count_as_they_are() {
    let mut world = World::new(FILE);
    let (laptop, phone, tablet) = (ClientId(ids(1)), ClientId(ids(2)), ClientId(ids(3)));
    for client in [laptop, phone, tablet] {
        world.put_client("alice", client);
    }
    world.put_gateway("hq", GatewayId(ids(4)));
    let at = |address: &str, country: &str| Circumstances {
        remote_ip: address.parse().ok(),
        country: country.parse().ok(),
        ..Circumstances::default()
    };
    let presence = Presence {
        clients: [(laptop, None), (phone, None)].into(),
        circumstances: [
            (laptop, at("203.0.113.9", "DE")),
            (phone, at("198.51.100.1", "FR")),
        ]
        .into(),
        gateways: [(GatewayId(ids(4)), None)].into(),
        ..Presence::default()
    };

    let request = explain_request("alice", Some("192.0.2.1"));
    let explanation = answer(&world.directory, &presence, &request, MONDAY);

    assert!(explanation.allowed);
    let verdicts: Vec<(Option<ClientId>, bool, bool)> = (explanation.verdicts.iter())
        .map(|verdict| (verdict.client, verdict.online, verdict.allowed))
        .collect();
    assert_eq!(
        verdicts,
        [(Some(laptop), true, true), (Some(phone), true, false)]
    );
    assert_eq!(explanation.gateways, ["device"]);
}

#[test]
fn who_is_in_no_group_that_counts_is_told_so() {
    let mut world = World::new(FILE);
    let reasons = |world: &World, actor: &str, resource: &str| {
        let request = Request::Explain {
            actor: actor.to_owned(),
            resource: resource.to_owned(),
            remote_ip: None,
            country: None,
        };
        let explanation = answer(&world.directory, &Presence::default(), &request, MONDAY);
        assert!(!explanation.allowed);
        assert_eq!(explanation.verdicts[0].others, []);
        explanation.reasons
    };

    assert_eq!(
        reasons(&world, "bob", "lan"),
        ["`bob` is in `guests`, and the policies for `lan` are for `admins`, `staff`"]
    );
    assert_eq!(
        reasons(&world, "carol", "lan"),
        ["`carol` is in no group, and the policies for `lan` are for `admins`, `staff`"]
    );
    assert_eq!(
        reasons(&world, "alice", "vault"),
        ["no policy lets anyone into `vault`"]
    );

    world.put_client("bob", ClientId(ids(1)));
    assert_eq!(reasons(&world, "bob", "lan").len(), 1);
}

#[test]
fn names_that_do_not_exist_are_told_as_such() {
    let world = World::new(FILE);
    let ask = |actor: &str, resource: &str| {
        let request = Request::Explain {
            actor: actor.to_owned(),
            resource: resource.to_owned(),
            remote_ip: None,
            country: None,
        };
        perform(&world.directory, &Presence::default(), &request, MONDAY)
    };
    let name = "nothing".to_owned();

    assert_eq!(
        ask("nothing", "lan"),
        Err(Failure::UnknownActor { name: name.clone() })
    );
    assert_eq!(
        ask("alice", "nothing"),
        Err(Failure::UnknownResource { name })
    );
}

fn ask(directory: &Directory, actor: &str, remote_ip: Option<&str>, unix: u64) -> Explanation {
    let request = explain_request(actor, remote_ip);
    let explanation = answer(directory, &Presence::default(), &request, unix);
    let text = serde_json::to_string(&explanation).unwrap();
    assert_eq!(
        serde_json::from_str::<Explanation>(&text).unwrap(),
        explanation
    );
    explanation
}

fn explain_request(actor: &str, remote_ip: Option<&str>) -> Request {
    Request::Explain {
        actor: actor.to_owned(),
        resource: "lan".to_owned(),
        remote_ip: remote_ip.map(|address| address.parse().unwrap()),
        country: None,
    }
}

fn answer(directory: &Directory, presence: &Presence, request: &Request, unix: u64) -> Explanation {
    let response = perform(directory, presence, request, unix).unwrap();
    let Response::Explained(explanation) = response else {
        panic!("{response:?}");
    };
    *explanation
}

fn perform(
    directory: &Directory,
    presence: &Presence,
    request: &Request,
    unix: u64,
) -> Result<Response, Failure> {
    use rand::SeedableRng as _;

    let known = Known {
        directory,
        presence,
        locations: &Locations::parse("203.0.113.0/24,DE\n198.51.100.0/24,FR").unwrap(),
        unix,
    };
    let mut random = rand::rngs::StdRng::from_seed([5; 32]);
    let who = Who::Admin { uid: 7 };
    let performed = crate::admin::perform(&known, who, request, &mut random)?;
    assert!(performed.edits.is_empty() && performed.entries.is_empty());
    let Answer::Known(response) = performed.answer else {
        panic!("{performed:?}");
    };
    Ok(response)
}

fn verify(world: &mut World, id: ClientId) {
    let client = world.directory.clients()[&id].clone();
    world.directory.apply(&Edit::PutClient(Client {
        verified: true,
        ..client
    }));
}
