use connlib_wire::portal::resource::{Filter, IpStack, PortRange};

use super::*;

const GOOD: &str = r#"[network]
upstream_dns = ["9.9.9.9", "https://dns.example/dns-query"]
search_domain = "corp.test"

[[site]]
name = "hq"

[[actor]]
name = "alice"
groups = ["staff"]

[[resource]]
name = "office lan"
address = "10.20.0.0/16"
sites = ["hq"]
filters = ["tcp/80-443", "udp/53", "icmp"]

[[resource]]
name = "wiki"
address = "*.corp.test"
sites = ["hq"]
ip_stack = "ipv4_only"

[[resource]]
name = "everything"
address = "internet"
sites = ["hq"]

[[policy]]
group = "staff"
resource = "office lan"
"#;

#[test]
fn the_documented_file_is_read() {
    let topology = Topology::parse(GOOD, "t.toml").unwrap();

    assert_eq!(
        topology.network.do53,
        ["9.9.9.9".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(topology.network.doh, ["https://dns.example/dns-query"]);
    assert_eq!(topology.network.search_domain.as_deref(), Some("corp.test"));
    assert_eq!(topology.sites, ["hq"]);
    let [office, wiki, everything] = &topology.resources[..] else {
        panic!("{topology:?}");
    };
    assert_eq!(
        office.address,
        Address::Cidr("10.20.0.0/16".parse().unwrap())
    );
    assert_eq!(
        office.filters[0],
        Filter::Tcp(PortRange {
            port_range_start: 80,
            port_range_end: 443
        })
    );
    assert_eq!(
        wiki.address,
        Address::Dns {
            pattern: "*.corp.test".to_owned(),
            ip_stack: IpStack::Ipv4Only
        }
    );
    assert_eq!(everything.address, Address::Internet);
    assert_eq!(topology.policies.len(), 1);
}

#[test]
fn an_empty_file_is_an_empty_topology() {
    assert_eq!(Topology::parse("", "t.toml"), Ok(Topology::default()));
}

/// (what to replace, by what, the line it is found at, the key, a part of the problem)
const BAD: &[(&str, &str, usize, &str, &str)] = &[
    ("name = \"hq\"", "nmae = \"hq\"", 6, "nmae", "unknown field"),
    ("name = \"hq\"", "", 5, "name", "missing field"),
    ("name = \"hq\"", "name = 7", 6, "name", "invalid type"),
    ("name = \"hq\"", "name = \"hq", 6, "name", ""),
    ("name = \"hq\"", "name = \"\"", 6, "site.name", "empty"),
    ("name = \"hq\"", "name = \" hq\"", 6, "site.name", "space"),
    ("[[site]]", "[[sight]]", 5, "sight", "unknown field"),
    (
        "name = \"hq\"",
        "name = \"hq\"\n[[site]]\nname = \"hq\"",
        8,
        "site.name",
        "twice",
    ),
    (
        "name = \"hq\"",
        "name = \"hq\"\n[[site]]\nname = \"HQ\"",
        8,
        "site.name",
        "case",
    ),
    (
        "\"9.9.9.9\"",
        "\"9.9.9.9:53\"",
        2,
        "network.upstream_dns",
        "not a DNS server",
    ),
    (
        "https://dns.example/dns-query",
        "tls://dns.example/x",
        2,
        "network.upstream_dns",
        "not a DNS server",
    ),
    (
        "https://dns.example/dns-query",
        "tls://[::1]:99999",
        2,
        "network.upstream_dns",
        "not a DNS server",
    ),
    (
        "https://",
        "http://",
        2,
        "network.upstream_dns",
        "not a DNS server",
    ),
    (
        "\"corp.test\"",
        "\"corp..test\"",
        3,
        "network.search_domain",
        "empty label",
    ),
    (
        "[\"staff\"]",
        "[\"staff\", \"staff\"]",
        10,
        "actor.groups",
        "twice",
    ),
    (
        "10.20.0.0/16",
        "10.20.0.0/33",
        14,
        "resource.address",
        "not an IP address",
    ),
    (
        "10.20.0.0/16",
        "10.20.0.1/16",
        14,
        "resource.address",
        "10.20.0.0/16",
    ),
    (
        "*.corp.test\"",
        "**x.corp.test\"",
        20,
        "resource.address",
        "whole label",
    ),
    (
        "\"ipv4_only\"",
        "\"ipv5\"",
        22,
        "ip_stack",
        "unknown variant",
    ),
    (
        "sites = [\"hq\"]\nfilters",
        "sites = [\"branch\"]\nfilters",
        15,
        "resource.sites",
        "no `[[site]]` named `branch`",
    ),
    (
        "sites = [\"hq\"]\nfilters",
        "sites = []\nfilters",
        15,
        "resource.sites",
        "at least one",
    ),
    (
        "sites = [\"hq\"]\nfilters",
        "sites = [\"hq\", \"hq\"]\nfilters",
        15,
        "resource.sites",
        "twice",
    ),
    (
        "sites = [\"hq\"]\nfilters",
        "filters",
        12,
        "sites",
        "missing field",
    ),
    (
        "tcp/80-443",
        "tcp/443-80",
        16,
        "resource.filters",
        "not a filter",
    ),
    (
        "address = \"internet\"",
        "address = \"internet\"\nip_stack = \"dual\"",
        27,
        "resource.ip_stack",
        "only a resource of DNS names",
    ),
    (
        "address = \"internet\"",
        "address = \"internet\"\nfilters = []",
        27,
        "resource.filters",
        "no filters",
    ),
    (
        "name = \"wiki\"",
        "name = \"office lan\"",
        19,
        "resource.name",
        "twice",
    ),
    (
        "address = \"*.corp.test\"\nsites = [\"hq\"]\nip_stack = \"ipv4_only\"",
        "address = \"internet\"\nsites = [\"hq\"]",
        25,
        "resource.address",
        "`wiki` is the Internet already",
    ),
    (
        "group = \"staff\"",
        "group = \"stuff\"",
        30,
        "policy.group",
        "group named `stuff`",
    ),
    (
        "resource = \"office lan\"",
        "resource = \"office\"",
        31,
        "policy.resource",
        "no `[[resource]]` named `office`",
    ),
    (
        "[[policy]]\n",
        "[[policy]]\ngroup = \"staff\"\nresource = \"office lan\"\n[[policy]]\n",
        33,
        "policy.group",
        "already",
    ),
];

/// (a list of conditions, the key, a part of the problem)
const BAD_CONDITIONS: &[(&str, &str, &str)] = &[
    ("{}", "policy.conditions", "says nothing"),
    ("{ remote = [] }", "remote", "unknown field"),
    ("{ remote_ip = [] }", "conditions.remote_ip", "empty list"),
    (
        "{ remote_ip = \"10.0.0.0/8\" }",
        "conditions",
        "invalid type",
    ),
    (
        "{ remote_ip = [\"10.0.0.1/8\"] }",
        "conditions.remote_ip",
        "10.0.0.0/8",
    ),
    (
        "{ not_remote_ip = [\"corp.test\"] }",
        "conditions.not_remote_ip",
        "not an IP address",
    ),
    (
        "{ country = [\"GER\"] }",
        "conditions.country",
        "not a country",
    ),
    (
        "{ not_country = [] }",
        "conditions.not_country",
        "empty list",
    ),
    ("{ verified = false }", "conditions.verified", "only `true`"),
    (
        "{ weekdays = \"monday\" }",
        "conditions.weekdays",
        "not a list of weekdays",
    ),
    (
        "{ weekdays = [] }",
        "conditions.weekdays",
        "not a list of weekdays",
    ),
    ("{ weekdays = 1 }", "conditions", "mon-fri"),
    (
        "{ hours = \"8-18\" }",
        "conditions.hours",
        "not a part of a day",
    ),
    (
        "{ hours = \"22:00-06:00\" }",
        "conditions.hours",
        "ends at or before its start",
    ),
    (
        "{ hours = \"08:00-18:00\", timezone = \"Berlin\" }",
        "conditions.timezone",
        "no time zone `Berlin`",
    ),
    (
        "{ timezone = \"Europe/Berlin\" }",
        "conditions.timezone",
        "says nothing",
    ),
    ("true", "conditions", "invalid type"),
];

#[test]
fn a_bad_condition_is_told_by_file_line_and_key() {
    for (list, key, problem) in BAD_CONDITIONS {
        let text = format!("{GOOD}conditions = [ {list} ]\n");

        let error = Topology::parse(&text, "t.toml").unwrap_err();

        assert_eq!(
            (error.line, error.key.as_str()),
            (32, *key),
            "{list}: {error}"
        );
        assert!(error.problem.contains(problem), "{list}: {error}");
    }

    // In tables of their own the line is the key's.
    let text = format!("{GOOD}[[policy.conditions]]\nverified = true\nhours = \"9-5\"");
    let error = Topology::parse(&text, "t.toml").unwrap_err();
    assert_eq!(
        (error.line, error.key.as_str()),
        (34, "conditions.hours"),
        "{error}"
    );
}

#[test]
fn conditions_are_read() {
    let conditions = |list: &str| -> Vec<String> {
        let text = format!("{GOOD}conditions = [ {list} ]\n");
        let topology = Topology::parse(&text, "t.toml").unwrap();
        (topology.policies[0].conditions.iter())
            .map(ToString::to_string)
            .collect()
    };

    assert_eq!(conditions(""), [] as [&str; 0]);
    let documented = r#"{ remote_ip = ["203.0.113.0/24"] }, { weekdays = "mon-fri", hours = "08:00-18:00", timezone = "Europe/Berlin" }"#;
    assert_eq!(
        conditions(documented),
        [
            "remote_ip 203.0.113.0/24",
            "weekdays mon-fri 08:00-18:00 Europe/Berlin"
        ]
    );
    let together = r#"{ verified = true, country = ["de", "FR"], weekdays = ["mon", "wed-fri"], not_remote_ip = ["2001:db8::1", "10.0.0.1"] }, { hours = "20:00-24:00" }"#;
    assert_eq!(
        conditions(together),
        [
            "not_remote_ip 10.0.0.1/32, 2001:db8::1/128",
            "country DE, FR",
            "verified",
            "weekdays mon,wed-fri 00:00-24:00 UTC",
            "weekdays mon-sun 20:00-24:00 UTC",
        ]
    );
}

#[test]
fn alternatives_differ_in_their_conditions() {
    let again = |list: &str| {
        let again = "[[policy]]\ngroup = \"staff\"\nresource = \"office lan\"\n";
        let first = "conditions = [ { verified = true }, { hours = \"08:00-18:00\" } ]\n";
        Topology::parse(
            &format!("{GOOD}{first}{again}conditions = [ {list} ]"),
            "t.toml",
        )
    };

    assert_eq!(again("{ verified = true }").unwrap().policies.len(), 2);
    let same = again("{ hours = \"08:00-18:00\", verified = true }").unwrap_err();
    assert_eq!((same.line, same.key.as_str()), (34, "policy.group"));
    assert!(same.problem.contains("under the same conditions"), "{same}");
}

#[test]
fn each_error_names_file_line_and_key() {
    for (old, new, line, key, problem) in BAD {
        assert!(GOOD.contains(old), "{old}");
        let text = GOOD.replacen(old, new, 1);

        let error = Topology::parse(&text, "dir/t.toml").unwrap_err();

        assert_eq!(
            (error.line, error.key.as_str()),
            (*line, *key),
            "{new}: {error}"
        );
        assert!(error.problem.contains(problem), "{new}: {error}");
        let shown = format!("dir/t.toml:{line}: `{key}`: ");
        assert!(error.to_string().starts_with(&shown), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*", cut in 0..GOOD.len()) {
        let _ = Topology::parse(&text, "t.toml");
        let _ = Topology::parse(&format!("{}{text}", &GOOD[..cut]), "t.toml");
        let _ = Topology::parse(&format!("{GOOD}conditions = [ {{ hours = {text:?}, timezone = {text:?} }} ]"), "t.toml");
    }
}
