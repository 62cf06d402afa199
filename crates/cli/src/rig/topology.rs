//! Who plays whom: our own topology, or somebody's file.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use connlib_portal::model::Address;
use connlib_portal::topology::{ResourceEntry, Topology};
use connlib_wire::portal::resource::{Filter, IpStack};

use super::plan::{RESOURCE, RESOURCE_HTTP};
use crate::exit::{Exit, Failure};

/// The topology, and the actor and the site in it that the demo's programs are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Roles {
    /// The file, for the portal.
    pub(crate) text: String,
    /// What the portal calls the file in its complaints.
    pub(crate) file_name: String,
    /// Whose client it is.
    pub(crate) actor: String,
    /// Where the gateway is.
    pub(crate) site: String,
    /// A name that the client may reach, if there is any.
    pub(crate) domain: Option<String>,
}

/// The demo's own topology.
const TOPOLOGY: &str = r#"[[site]]
name = "office"

[[actor]]
name = "alice"
groups = ["staff"]

[[resource]]
name = "office lan"
address = "10.20.0.0/16"
sites = ["office"]

[[resource]]
name = "wiki"
address = "wiki.corp.test"
sites = ["office"]

[[policy]]
group = "staff"
resource = "office lan"

[[policy]]
group = "staff"
resource = "wiki"
"#;

impl Roles {
    /// Reads a file, or takes the demo's own topology.
    ///
    /// # Errors
    ///
    /// Exit 2: the file can't be read or is wrong, no cidr resource in it covers the demo's host, nobody may use it, or there are dns
    /// resources and none of them lets the demo fetch anything.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = file else {
            return Self::of(TOPOLOGY.into(), "the demo's topology");
        };
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::new(
                Exit::WrongUse,
                format_args!("can't read the topology file {}: {error}", path.display()),
            )
        })?;

        Self::of(text, &path.display().to_string())
    }

    fn of(text: String, file_name: &str) -> Result<Self, Failure> {
        let wrong =
            |problem: String| Failure::new(Exit::WrongUse, format_args!("{file_name}: {problem}"));
        let topology = Topology::parse(&text, file_name)
            .map_err(|error| Failure::new(Exit::WrongUse, error))?;
        let host = IpAddr::V4(RESOURCE);
        let covers = |address: &Address| match address {
            Address::Cidr(net) => net.contains(&host),
            Address::Dns { .. } | Address::Internet => false,
        };
        // The portal, too, prefers the longest prefix; which one is asked for doesn't matter to it.
        let resource = topology
            .resources
            .iter()
            .find(|resource| covers(&resource.address))
            .ok_or_else(|| {
                wrong(format!(
                    "no cidr resource covers {host}, the demo's host; add one such as \"10.20.0.0/16\""
                ))
            })?;
        let may_use = |group: &String| {
            topology
                .policies
                .iter()
                .any(|policy| policy.resource == resource.name && policy.group == *group)
        };
        let actor = topology
            .actors
            .iter()
            .find(|actor| actor.groups.iter().any(may_use))
            .ok_or_else(|| {
                wrong(format!(
                    "no actor may use `{}`; add a policy for one of an actor's groups",
                    resource.name
                ))
            })?;
        let site = resource
            .sites
            .first()
            .ok_or_else(|| wrong(format!("`{}` is at no site; give it one", resource.name)))?;

        let of_actor = |name: &String| {
            topology
                .policies
                .iter()
                .any(|policy| policy.resource == *name && actor.groups.contains(&policy.group))
        };
        let mut domains = topology.resources.iter().filter_map(|resource| {
            let is_there = resource.sites.contains(site) && of_actor(&resource.name);
            match &resource.address {
                Address::Dns { pattern, ip_stack } if is_there => {
                    Some((resource, pattern, *ip_stack))
                }
                Address::Dns { .. } | Address::Cidr(_) | Address::Internet => None,
            }
        });
        let first = domains.clone().next();
        let can_be_fetched = |(resource, _, ip_stack): &(&ResourceEntry, _, _)| {
            *ip_stack != IpStack::Ipv6Only && lets_through(&resource.filters)
        };
        let domain = match (domains.find(can_be_fetched), first) {
            (Some((_, pattern, _)), _) => Some(matching(pattern)),
            (None, None) => None,
            (None, Some((resource, ..))) => {
                return Err(wrong(format!(
                    "the demo fetches by IPv4 from TCP port {}, which no dns resource lets it do, such as `{}`; change \
                     the `ip_stack` or the `filters` of one",
                    RESOURCE_HTTP.port(),
                    resource.name
                )));
            }
        };

        Ok(Self {
            domain,
            actor: actor.name.clone(),
            site: site.clone(),
            file_name: file_name.to_owned(),
            text,
        })
    }
}

/// Whether the demo's fetches pass.
fn lets_through(filters: &[Filter]) -> bool {
    filters.is_empty()
        || filters.iter().any(|filter| match filter {
            Filter::Tcp(ports) => {
                (ports.port_range_start..=ports.port_range_end).contains(&RESOURCE_HTTP.port())
            }
            Filter::Udp(_) | Filter::Icmp | _ => false,
        })
}

/// A name that a pattern matches.
fn matching(pattern: &str) -> String {
    let label = |label: &str| match label {
        "*" | "**" => "wiki".to_owned(),
        label => label.replace('*', "").replace('?', "w"),
    };
    let labels: Vec<_> = pattern.split('.').map(label).collect();

    labels.join(".")
}

#[cfg(test)]
mod tests {
    use connlib_wire::dns::Name;
    use connlib_wire::pattern::Pattern;

    use super::*;

    #[test]
    fn the_own_topology_is_right() {
        let roles = Roles::read(None).unwrap();

        assert_eq!(
            (roles.actor.as_str(), roles.site.as_str()),
            ("alice", "office")
        );
        assert_eq!(roles.domain.as_deref(), Some("wiki.corp.test"));
    }

    #[test]
    fn a_name_is_found_for_each_pattern() {
        for pattern in [
            "*.corp.test",
            "**.corp.test",
            "wik?.corp.test",
            "a*b.corp.test",
        ] {
            let name = Name::parse(&matching(pattern)).unwrap();
            assert!(Pattern::parse(pattern).unwrap().matches(&name), "{name}");
        }
        let without = TOPOLOGY.replace("wiki.corp.test", "10.9.0.0/16");
        assert_eq!(Roles::of(without, "x.toml").unwrap().domain, None);
    }

    #[test]
    fn a_name_is_taken_that_something_can_be_fetched_from() {
        let with = |filters: &str| {
            TOPOLOGY.replace(
                "address = \"wiki.corp.test\"\n",
                &format!("address = \"wiki.corp.test\"\n{filters}\n"),
            )
        };
        let other = "[[resource]]\nname = \"other\"\naddress = \"other.corp.test\"\nsites = [\"office\"]\n\
                     filters = [\"icmp\", \"tcp/80-443\"]\nip_stack = \"ipv4_only\"\n\
                     [[policy]]\ngroup = \"staff\"\nresource = \"other\"\n";
        for unfit in [
            "ip_stack = \"ipv6_only\"",
            "filters = [\"udp/80\", \"icmp\", \"tcp/81-90\"]",
        ] {
            let text = with(unfit);
            let failure = Roles::of(text.clone(), "x.toml").unwrap_err();
            assert_eq!(failure.exit, Exit::WrongUse);
            assert!(failure.to_string().contains("such as `wiki`"), "{failure}");

            let roles = Roles::of(text + other, "x.toml").unwrap();
            assert_eq!(roles.domain.as_deref(), Some("other.corp.test"));
        }
        let roles = Roles::of(with("filters = [\"tcp/80\"]") + other, "x.toml").unwrap();
        assert_eq!(roles.domain.as_deref(), Some("wiki.corp.test"));
    }

    #[test]
    fn the_first_resource_that_covers_the_host_decides() {
        let text = TOPOLOGY
            .replace("10.20.0.0/16", "10.20.0.10")
            .replace("office", "hq")
            .replace("alice", "bob");

        let roles = Roles::of(text, "x.toml").unwrap();
        assert_eq!((roles.actor.as_str(), roles.site.as_str()), ("bob", "hq"));
    }

    #[test]
    fn what_the_demo_can_not_use_is_wrong_use() {
        for (from, to, expected) in [
            (
                "10.20.0.0/16",
                "10.21.0.0/16",
                "no cidr resource covers 10.20.0.10",
            ),
            (
                "[[policy]]\ngroup = \"staff\"\nresource = \"office lan\"\n",
                "[[resource]]\nname = \"x\"\naddress = \"10.9.0.0/16\"\nsites = [\"office\"]\n\
                 [[policy]]\ngroup = \"staff\"\nresource = \"x\"",
                "no actor may use `office lan`",
            ),
            ("[[site]]\nname", "[[site]]\nnam", "x.toml:2"),
        ] {
            let failure = Roles::of(TOPOLOGY.replace(from, to), "x.toml").unwrap_err();

            assert_eq!(failure.exit, Exit::WrongUse);
            assert!(failure.to_string().contains(expected), "{failure}");
        }
    }
}
