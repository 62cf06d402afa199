use connlib_wire::id::{ClientId, GatewayId};

use super::*;
use crate::model::{Condition, Edit, GrantId, GrantKey, Weekdays, Window, Zone, conditions_text};
use crate::tests::{World, ids};
use crate::topology::Topology;

const FILE: &str = r#"
[[site]]
name = "hq"
[[site]]
name = "branch"
[[actor]]
name = "alice"
groups = ["staff", "admins"]
[[actor]]
name = "bob"
groups = ["staff"]
[[resource]]
name = "lan"
address = "10.20.0.0/16"
sites = ["hq"]
[[resource]]
name = "vault"
address = "10.30.0.1"
sites = ["branch"]
filters = ["tcp/443"]
[[policy]]
group = "staff"
resource = "lan"
[[policy]]
group = "admins"
resource = "lan"
[[policy]]
group = "admins"
resource = "vault"
"#;

#[test]
fn groups_decide_who_reaches_what() {
    let world = World::new(FILE);

    let names = |actor: &str| -> Vec<String> {
        let actor = world.directory.actor_named(actor).unwrap().id;
        let mut names: Vec<String> = reachable(&world.directory, actor, &Circumstances::default())
            .values()
            .map(|decision| decision.resource.name.clone())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("alice"), ["lan", "vault"]);
    assert_eq!(names("bob"), ["lan"]);

    let bob = world.directory.actor_named("bob").unwrap().id;
    let decide = |resource: &str| {
        let resource = world.resource(resource);
        decide(&world.directory, bob, resource, &Circumstances::default())
    };
    assert!(decide("lan").is_ok());
    assert_eq!(decide("vault").unwrap_err(), Denied::NotFound);
}

#[test]
fn applying_twice_changes_nothing() {
    let mut world = World::new(FILE);

    let again = world.apply(FILE);

    assert!(again.changes.is_empty(), "{:?}", again.changes);
    assert_eq!(again.edits, []);
}

#[test]
fn things_keep_their_ids_while_they_keep_their_names() {
    let mut world = World::new(FILE);
    let lan = world.resource("lan");

    let plan = world.apply(&FILE.replace("10.20.0.0/16", "10.0.0.0/8"));

    assert_eq!(world.resource("lan"), lan);
    let [change] = &plan.changes.changed[..] else {
        panic!("{:?}", plan.changes);
    };
    assert_eq!(
        change.to_string(),
        "resource `lan` (address: 10.20.0.0/16 -> 10.0.0.0/8)"
    );
    assert!(plan.changes.added.is_empty() && plan.changes.removed.is_empty());
}

#[test]
fn changes_are_told() {
    let mut world = World::new(FILE);

    let wanted = FILE
        .replace("groups = [\"staff\"]", "groups = [\"staff\", \"guests\"]")
        .replace("filters = [\"tcp/443\"]", "")
        .replace("name = \"hq\"", "name = \"hq\"\n[[site]]\nname = \"new\"")
        .replace("[[policy]]\ngroup = \"staff\"\nresource = \"lan\"", "");
    let plan = world.apply(&format!(
        "{wanted}\n[network]\nsearch_domain = \"corp.test\""
    ));

    let told =
        |changes: &[Change]| -> Vec<String> { changes.iter().map(ToString::to_string).collect() };
    assert_eq!(told(&plan.changes.added), ["site `new`"]);
    assert_eq!(
        told(&plan.changes.changed),
        [
            "network (search_domain: nothing -> corp.test)",
            "actor `bob` (groups: staff -> guests, staff)",
            "resource `vault` (filters: tcp/443 -> nothing)",
        ]
    );
    assert_eq!(told(&plan.changes.removed), ["policy `staff -> lan`"]);
}

#[test]
fn removing_everything_leaves_nothing() {
    let mut world = World::new(FILE);
    grant(&mut world, "alice", "lan", "hq");

    world.apply("");

    assert_eq!(world.directory, Directory::new(crate::tests::account()));
}

#[test]
fn a_grant_stands_while_any_policy_holds_it_up() {
    let mut world = World::new(FILE);
    let key = grant(&mut world, "alice", "lan", "hq");

    world.apply(&FILE.replace("[[policy]]\ngroup = \"staff\"\nresource = \"lan\"", ""));
    let admins = &world.directory.grants()[&key];
    let policy = &world.directory.policies()[&admins.policy];
    assert_eq!(policy.group, "admins");

    world.apply(
        &FILE
            .replace("[[policy]]\ngroup = \"staff\"\nresource = \"lan\"", "")
            .replace("[[policy]]\ngroup = \"admins\"\nresource = \"lan\"", ""),
    );
    assert_eq!(world.directory.grants().len(), 0);
}

#[test]
fn a_grant_falls_with_what_it_was_given_for() {
    for (old, new, falls) in [
        ("10.20.0.0/16", "10.21.0.0/16", true),
        (
            "address = \"10.20.0.0/16\"\nsites = [\"hq\"]",
            "address = \"10.20.0.0/16\"\nsites = [\"branch\"]",
            true,
        ),
        (
            "address = \"10.20.0.0/16\"\nsites = [\"hq\"]",
            "address = \"10.20.0.0/16\"\nsites = [\"branch\", \"hq\"]",
            false,
        ),
        ("groups = [\"staff\"]", "groups = [\"guests\"]", true),
        (
            "groups = [\"staff\"]",
            "groups = [\"guests\", \"staff\"]",
            false,
        ),
        (
            "sites = [\"hq\"]",
            "sites = [\"hq\"]\nfilters = [\"icmp\"]",
            false,
        ),
    ] {
        let mut world = World::new(FILE);
        let key = grant(&mut world, "bob", "lan", "hq");

        world.apply(&FILE.replace(old, new));

        assert_eq!(!world.directory.grants().contains_key(&key), falls, "{new}");
    }
}

#[test]
fn alternatives_keep_their_ids() {
    let policy = "[[policy]]\ngroup = \"staff\"\nresource = \"lan\"\n";
    let file = |alternatives: &[&str]| {
        let policies = alternatives
            .iter()
            .map(|list| format!("{policy}conditions = [ {list} ]\n"));
        FILE.replace(policy, &policies.collect::<String>())
    };
    let (night, office, verified) = (
        "{ hours = \"20:00-24:00\" }",
        "{ remote_ip = [\"203.0.113.0/24\"] }",
        "{ verified = true }",
    );
    let mut world = World::new(&file(&[night, office]));
    let id = |world: &World, text: &str| {
        let mut policies = world.directory.policies().values();
        let policy = policies.find(|policy| conditions_text(&policy.conditions).contains(text));
        policy.unwrap().id
    };
    let (of_night, of_office) = (id(&world, "20:00"), id(&world, "203.0.113"));

    let reordered = world.apply(&file(&[office, night]));
    assert!(reordered.changes.is_empty(), "{reordered:?}");

    let changed = world.apply(&file(&[verified, office]));
    assert_eq!(
        (id(&world, "verified"), id(&world, "203.0.113")),
        (of_night, of_office)
    );
    assert_eq!(
        changed.changes.changed[0].to_string(),
        "policy `staff -> lan` (conditions: weekdays mon-sun 20:00-24:00 UTC -> verified)"
    );
    assert!(changed.changes.added.is_empty() && changed.changes.removed.is_empty());

    let more = world.apply(&file(&[verified, night, office]));
    assert_eq!(
        more.changes.added[0].to_string(),
        "policy `staff -> lan, if weekdays mon-sun 20:00-24:00 UTC`"
    );
    let fewer = world.apply(&file(&[office]));
    assert_eq!(fewer.changes.removed.len(), 2);
    assert_eq!(id(&world, "203.0.113"), of_office);
}

#[test]
fn the_policy_that_lasts_longest_decides() {
    let mut world = World::new(FILE);
    let lan = world.resource("lan");
    let alice = world.directory.actor_named("alice").unwrap().id;
    let staff = policy_of(&world, "staff", lan);
    let admins = policy_of(&world, "admins", lan);
    // Friday 2026-01-02, 12:00 UTC.
    let noon = 1_767_355_200;
    let circumstances = Circumstances {
        unix: noon,
        ..Circumstances::default()
    };
    let mut decided = |conditions: [Vec<Condition>; 2]| {
        for (policy, conditions) in [&staff, &admins].into_iter().zip(conditions) {
            world.directory.apply(&Edit::PutPolicy(Policy {
                conditions,
                ..policy.clone()
            }));
        }
        let decision = decide(&world.directory, alice, lan, &circumstances);
        let reachable = reachable(&world.directory, alice, &circumstances);
        let shown = reachable.get(&lan).map(|decision| decision.policy.id);
        assert_eq!(
            shown,
            decision.as_ref().ok().map(|decision| decision.policy.id)
        );
        decision.map(|decision| (decision.policy.group.clone(), decision.until))
    };
    let hours = |text: &str| {
        Condition::Time(Window {
            weekdays: Weekdays::default(),
            hours: text.parse().unwrap(),
            timezone: Zone::default(),
        })
    };
    let (early, late, over) = (
        hours("11:00-13:00"),
        hours("12:00-14:00"),
        hours("08:00-12:00"),
    );
    let group = |name: &str| name.to_owned();

    let first = if staff.id < admins.id {
        "staff"
    } else {
        "admins"
    };
    assert_eq!(decided([vec![], vec![]]), Ok((group(first), None)));
    assert_eq!(
        decided([vec![], vec![late.clone()]]),
        Ok((group("staff"), None))
    );
    let end = Some(noon + 7200);
    assert_eq!(
        decided([vec![early.clone()], vec![late.clone()]]),
        Ok((group("admins"), end))
    );
    let end = Some(noon + 3600);
    assert_eq!(
        decided([vec![early, late], vec![over.clone()]]),
        Ok((group("staff"), end))
    );
    assert_eq!(
        decided([vec![Condition::Verified], vec![over]]),
        Err(Denied::Forbidden(
            [Property::Verified, Property::Time].into()
        ))
    );
}

fn policy_of(world: &World, group: &str, resource: ResourceId) -> Policy {
    let mut policies = world.directory.policies().values();
    let policy = policies.find(|policy| policy.group == group && policy.resource == resource);
    policy.unwrap().clone()
}

/// Lets `actor`'s only client into `resource` by a gateway of `site`, as the first policy of `staff` decides.
fn grant(world: &mut World, actor: &str, resource: &str, site: &str) -> GrantKey {
    let key = GrantKey {
        client: ClientId(ids(1)),
        resource: world.resource(resource),
        gateway: GatewayId(ids(2)),
    };
    let staff = (world.directory.policies().values())
        .find(|policy| policy.group == "staff")
        .unwrap()
        .id;
    let token = world.put_client(actor, key.client);
    world.put_gateway(site, key.gateway);
    world.directory.apply(&Edit::PutGrant(Grant {
        id: GrantId(ids(3)),
        key,
        policy: staff,
        token,
        created_at: 0,
        expires_at: None,
        remote_ip: None,
    }));

    key
}

proptest::proptest! {
    /// Whatever was there, applying a file ends in what the file says, and a second time changes nothing.
    #[test]
    fn applying_is_idempotent(first in topology(), second in topology()) {
        let mut world = World::new("");
        world.apply_topology(&first);

        let plan = world.apply_topology(&second);
        let again = world.apply_topology(&second);

        proptest::prop_assert!(again.changes.is_empty() && again.edits.is_empty(), "{again:?}");
        proptest::prop_assert_eq!(plan.changes.is_empty(), plan.edits.is_empty());
        let names: Vec<&String> = world.directory.sites().values().map(|site| &site.name).collect();
        proptest::prop_assert_eq!(names.len(), second.sites.len());
        proptest::prop_assert_eq!(world.directory.policies().len(), second.policies.len());
    }
}

fn topology() -> impl proptest::strategy::Strategy<Value = Topology> {
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    let resources = btree_map(0..4_u8, (0..3_u8, any::<bool>()), 0..4);
    let actors = btree_map(0..3_u8, 0..3_u8, 0..3);

    (resources, actors, any::<bool>()).prop_map(|(resources, actors, both_sites)| {
        let mut file = "[[site]]\nname = \"s0\"\n".to_owned();
        if both_sites {
            file += "[[site]]\nname = \"s1\"\n";
        }
        for (actor, group) in &actors {
            file += &format!("[[actor]]\nname = \"a{actor}\"\ngroups = [\"g{group}\"]\n");
        }
        for (resource, (net, is_filtered)) in &resources {
            let site = u8::from(both_sites && net % 2 == 1);
            file += &format!(
                "[[resource]]\nname = \"r{resource}\"\naddress = \"10.{net}.0.0/16\"\nsites = [\"s{site}\"]\n"
            );
            if *is_filtered {
                file += "filters = [\"tcp/80\"]\n";
            }
        }
        let groups: BTreeSet<u8> = actors.values().copied().collect();
        for (group, resource) in groups.iter().zip(resources.keys()) {
            file += &format!("[[policy]]\ngroup = \"g{group}\"\nresource = \"r{resource}\"\n");
        }
        Topology::parse(&file, "generated").unwrap()
    })
}
