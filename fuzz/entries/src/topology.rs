//! The portal's topology file, and the plan that makes a directory equal to it.
//!
//! * What is read can be written again and reads the same.
//! * What is wrong is told with a line of the file.
//! * Whatever was there before, a plan ends in what the file says, and a second one has nothing to do.
//! * Who may reach what is what the file's policies say.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use connlib_portal::model::{
    Account, Address, Condition, Directory, Resource, filter_text, parse_filter,
};
use connlib_portal::policy::{Circumstances, Conformity, decide, evaluate, plan, reachable};
use connlib_portal::topology::{ResourceEntry, Topology};
use connlib_wire::portal::resource::IpStack;
use uuid::Uuid;

/// Files one after the other, applied in turn; a zero byte ends a file.
pub fn topology(bytes: &[u8]) {
    let mut directory = Directory::new(Account {
        id: Uuid::from_u128(1),
        slug: "acme".to_owned(),
        ingest_key: "key".into(),
    });
    let mut last_id = 1;
    let mut new_id = || {
        last_id += 1;
        Uuid::from_u128(last_id)
    };

    for file in bytes.split(|byte| *byte == 0) {
        let Ok(text) = std::str::from_utf8(file) else {
            continue;
        };
        let topology = match Topology::parse(text, "fuzzed.toml") {
            Ok(topology) => topology,
            Err(error) => {
                let lines = text.lines().count().max(1);
                assert!((1..=lines + 1).contains(&error.line), "{error}");
                assert!(!error.problem.is_empty());
                continue;
            }
        };
        rewritten(&topology);

        let first = plan(&directory, &topology, &mut new_id);
        assert_eq!(first.changes.is_empty(), first.edits.is_empty());
        for edit in &first.edits {
            directory.apply(edit);
        }
        let second = plan(&directory, &topology, &mut new_id);
        assert!(second.edits.is_empty(), "{:?}", second.changes);
        says(&directory, &topology);
    }
}

fn rewritten(topology: &Topology) {
    let text = written(topology);
    let again = Topology::parse(&text, "written.toml");
    assert_eq!(again.as_ref(), Ok(topology), "{text}");
}

/// The directory holds what the topology says.
fn says(directory: &Directory, topology: &Topology) {
    assert_eq!(directory.network(), &topology.network);
    let sites: BTreeSet<&str> = directory.sites().values().map(|it| &*it.name).collect();
    assert!(
        sites.iter().eq(&topology
            .sites
            .iter()
            .map(|it| &**it)
            .collect::<BTreeSet<_>>())
    );
    assert_eq!(directory.sites().len(), topology.sites.len());
    assert_eq!(directory.policies().len(), topology.policies.len());
    assert_eq!(directory.actors().len(), topology.actors.len());
    assert_eq!(directory.resources().len(), topology.resources.len());

    for entry in &topology.resources {
        let mut resources = directory.resources().values();
        let resource = resources
            .find(|it| it.name == entry.name)
            .expect("it was added");
        same_resource(directory, resource, entry);
    }
    for entry in &topology.actors {
        let actor = directory.actor_named(&entry.name).expect("it was added");
        assert_eq!(actor.groups, entry.groups);
        let anywhere = Circumstances::default();
        let reachable = reachable(directory, actor.id, &anywhere);
        for resource in directory.resources().values() {
            let mut policies = (topology.policies.iter()).filter(|it| {
                matches!(
                    evaluate(&it.conditions, &anywhere),
                    Conformity::Holds { .. }
                )
            });
            let is_allowed =
                policies.any(|it| it.resource == resource.name && entry.groups.contains(&it.group));
            assert_eq!(
                decide(directory, actor.id, resource.id, &anywhere).is_ok(),
                is_allowed
            );
            assert_eq!(reachable.contains_key(&resource.id), is_allowed);
        }
    }
}

fn same_resource(directory: &Directory, resource: &Resource, entry: &ResourceEntry) {
    assert_eq!(resource.address, entry.address);
    assert_eq!(resource.filters, entry.filters);
    let sites = resource.sites.iter().map(|id| &*directory.sites()[id].name);
    let sites: BTreeSet<&str> = sites.collect();
    assert_eq!(sites, entry.sites.iter().map(|it| &**it).collect());
}

/// A topology as a file.
fn written(topology: &Topology) -> String {
    let mut file = String::from("[network]\n");
    let plain = topology.network.do53.iter().map(ToString::to_string);
    let servers = plain.chain(topology.network.doh.iter().cloned());
    let _ = writeln!(file, "upstream_dns = {}", list(servers));
    if let Some(domain) = &topology.network.search_domain {
        let _ = writeln!(file, "search_domain = {}", quoted(domain));
    }
    for site in &topology.sites {
        let _ = writeln!(file, "[[site]]\nname = {}", quoted(site));
    }
    for actor in &topology.actors {
        let (name, groups) = (quoted(&actor.name), list(actor.groups.iter().cloned()));
        let _ = writeln!(file, "[[actor]]\nname = {name}\ngroups = {groups}");
    }
    for resource in &topology.resources {
        write_resource(&mut file, resource);
    }
    for policy in &topology.policies {
        let (group, resource) = (quoted(&policy.group), quoted(&policy.resource));
        let _ = writeln!(file, "[[policy]]\ngroup = {group}\nresource = {resource}");
        let conditions: Vec<String> = policy.conditions.iter().map(condition).collect();
        let _ = writeln!(file, "conditions = [{}]", conditions.join(", "));
    }

    file
}

fn write_resource(file: &mut String, resource: &ResourceEntry) {
    let (name, address) = (
        quoted(&resource.name),
        quoted(&resource.address.to_string()),
    );
    let sites = list(resource.sites.iter().cloned());
    let _ = writeln!(
        file,
        "[[resource]]\nname = {name}\naddress = {address}\nsites = {sites}"
    );
    if let Address::Dns { ip_stack, .. } = &resource.address {
        let stack = match ip_stack {
            IpStack::Dual => "dual",
            IpStack::Ipv4Only => "ipv4_only",
            IpStack::Ipv6Only => "ipv6_only",
        };
        let _ = writeln!(file, "ip_stack = {}", quoted(stack));
    }
    if !resource.filters.is_empty() {
        let filters = resource.filters.iter().map(filter_text);
        let _ = writeln!(file, "filters = {}", list(filters));
    }
    for filter in &resource.filters {
        assert_eq!(parse_filter(&filter_text(filter)), Ok(*filter));
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.map(|item| quoted(&item)).collect();

    format!("[{}]", items.join(", "))
}

/// JSON's texts are TOML's, but for one character that TOML wants escaped.
fn quoted(text: &str) -> String {
    let text = serde_json::to_string(text).expect("a text can be written");

    text.replace('\u{7f}', "\\u007f")
}

/// From how people are shown it: `remote_ip 10.0.0.0/8, ::1/128`, `verified`, `weekdays mon-fri 08:00-18:00 UTC`.
fn condition(condition: &Condition) -> String {
    let shown = condition.to_string();
    let Some((key, rest)) = shown.split_once(' ') else {
        return format!("{{ {shown} = true }}");
    };
    if key == "weekdays" {
        let mut words = rest.split(' ');
        let mut next = || words.next().expect("three words");
        let (weekdays, hours, timezone) = (next(), next(), next());
        return format!(
            "{{ weekdays = \"{weekdays}\", hours = \"{hours}\", timezone = \"{timezone}\" }}"
        );
    }
    let texts: Vec<String> = rest.split(", ").map(|text| format!("\"{text}\"")).collect();

    format!("{{ {key} = [{}] }}", texts.join(", "))
}
