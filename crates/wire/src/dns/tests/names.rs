use super::*;

#[test]
fn names_are_canonical() {
    for (text, canonical) in [
        ("Wiki.Corp.TEST.", "wiki.corp.test"),
        ("a", "a"),
        (".", ""),
        ("", ""),
        (r"\065b.c", "ab.c"),
        (r"a\.b.c", r"a\.b.c"),
        (r"a\046b.c", r"a\.b.c"),
        (r"a\\.b", r"a\\.b"),
        (r"caf\195\169.test", r"caf\195\169.test"),
        (r"a\032b\000", r"a\032b\000"),
        ("_dns.*.x-y", "_dns.*.x-y"),
        (r"a\..", r"a\."),
    ] {
        assert_eq!(name(text).as_str(), canonical, "{text}");
    }
    assert_eq!(name("."), name(""));
    assert!(name(".").is_root() && !name("a").is_root());
    assert_eq!(
        (name(".").to_string(), name("A.").to_string()),
        (".".into(), "a".into())
    );
}

#[test]
fn what_is_no_name_is_refused() {
    use NameError::{EmptyLabel, Escape, LongLabel, NotPrintable, TooLong};
    for (text, error) in [
        (".a", EmptyLabel),
        ("a..b", EmptyLabel),
        ("a..", EmptyLabel),
        ("..", EmptyLabel),
        ("a\\", Escape),
        (r"a\25", Escape),
        (r"a\256", Escape),
        ("a\\\n", Escape),
        ("a b", NotPrintable(b' ')),
        ("café", NotPrintable(0xC3)),
    ] {
        assert_eq!(Name::parse(text), Err(error), "{text}");
    }
    let label = |len| "a".repeat(len);
    assert!(Name::parse(&label(63)).is_ok());
    assert_eq!(Name::parse(&label(64)), Err(LongLabel));

    // Three of 63 and one of 61: 253 characters, 255 octets on the wire.
    let longest = [label(63), label(63), label(63), label(61)].join(".");
    assert_eq!(longest.len(), 253);
    assert_eq!(name(&longest).to_wire().len(), 255);
    assert_eq!(name(&format!("{longest}.")).as_str(), longest);
    assert_eq!(Name::parse(&format!("{longest}a")), Err(TooLong));
    let escaped = [
        r"\000".repeat(63),
        r"\000".repeat(63),
        r"\000".repeat(63),
        r"\000".repeat(61),
    ];
    assert_eq!(name(&escaped.join(".")).to_wire().len(), 255);
}

#[test]
fn labels_are_cut_at_dots_without_a_backslash() {
    let labels = |text| {
        let name = name(text);
        let there: Vec<String> = name.labels().map(String::from).collect();
        let mut back: Vec<String> = name.labels().rev().map(String::from).collect();
        back.reverse();
        assert_eq!(there, back);
        there
    };
    assert_eq!(labels("a.b.c"), ["a", "b", "c"]);
    assert_eq!(labels(r"a\.b.c"), [r"a\.b", "c"]);
    assert_eq!(labels(r"a\\.b"), [r"a\\", "b"]);
    assert_eq!(labels(r"a\\\.b"), [r"a\\\.b"]);
    assert_eq!(labels(r"\..\."), [r"\.", r"\."]);
    assert_eq!(labels("").len(), 0);
}

#[test]
fn names_go_over_the_wire() {
    assert_eq!(name("a.bc").to_wire(), b"\x01a\x02bc\0");
    assert_eq!(name(r"a\.b.c").to_wire(), b"\x03a.b\x01c\0");
    assert_eq!(name(r"\255\092").to_wire(), b"\x02\xFF\\\0");
    assert_eq!(name(".").to_wire(), b"\0");
}

#[test]
fn names_below_arpa_are_addresses() {
    let reverse = |text: &str| name(text).reverse().map(|ip| ip.to_string());
    assert_eq!(reverse("1.0.96.100.in-addr.arpa").unwrap(), "100.96.0.1");
    assert_eq!(reverse("4.3.2.1.IN-ADDR.ARPA.").unwrap(), "1.2.3.4");
    for other in [
        "0.1.2.3.4.in-addr.arpa",
        "3.2.1.in-addr.arpa",
        "01.0.96.100.in-addr.arpa",
        "256.0.96.100.in-addr.arpa",
        "+1.0.96.100.in-addr.arpa",
        "1.0.96.100.in-addr.carpa",
        "1.0.96.100.ip6.arpa",
        "1.0.96.100.in-addr.arpa.x",
        r"1.0.96\.100.in-addr.arpa",
        "in-addr.arpa",
        "arpa",
        "",
    ] {
        assert_eq!(reverse(other), None, "{other}");
    }

    let nibbles = "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2";
    let v6 = |nibbles: &str| reverse(&format!("{nibbles}.ip6.arpa"));
    assert_eq!(v6(nibbles).unwrap(), "2001:db8::567:89ab");
    assert_eq!(v6(&nibbles.to_uppercase()).unwrap(), "2001:db8::567:89ab");
    assert_eq!(v6(&format!("0.{nibbles}")), None, "33 nibbles");
    assert_eq!(v6(&nibbles[2..]), None, "31 nibbles");
    assert_eq!(v6(&nibbles.replace('b', "g")), None);
    assert_eq!(v6(&nibbles.replace('b', "bb")), None);
}
