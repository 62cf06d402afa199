//! What dig, kdig and delv are answered.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::namespace::run_in;

use crate::deaf::pass_on;
use crate::servers::LONG_TEXT;
use crate::tools::{PATIENCE, Said, command, stdout, wait_for};
use crate::world::{Plan, World};

/// The addresses that stand for the first name that is asked for (client.md §15.2).
const FIRST_V4: [&str; 4] = ["100.96.0.1", "100.96.0.2", "100.96.0.3", "100.96.0.4"];
const FIRST_V6: [&str; 4] = [
    "fd00:2021:1111:8000::",
    "fd00:2021:1111:8000::1",
    "fd00:2021:1111:8000::2",
    "fd00:2021:1111:8000::3",
];

#[test]
#[ignore = "needs root, /dev/net/tun, dig, kdig, knotd, unbound, dnsmasq; .ci/run runs it"]
fn every_type_is_answered_as_the_table_says() {
    let Some(world) = World::new(&["kdig"], Plan::default()) else {
        return;
    };
    for [program, carrier] in [
        ["dig", "+notcp"],
        ["dig", "+tcp"],
        ["kdig", "+notcp"],
        ["kdig", "+tcp"],
    ] {
        let ask = |words: &[&str]| {
            let words = [&[carrier], words].concat();
            let said = match program {
                "dig" => world.dig(&words),
                _ => world.kdig(&words),
            };
            said.assert_status("NOERROR");
            said
        };
        let said = ask(&["wiki.corp.test", "A"]);
        said.assert_data(&FIRST_V4);
        for record in said.answers() {
            assert_eq!((record.ttl, record.kind.as_str()), (1, "A"), "{said}");
            assert_eq!(record.name, "wiki.corp.test.");
        }
        let flags = said.flags();
        assert!(flags.is_superset(&["qr", "rd", "ra"].into()), "{said}");
        for absent in ["aa", "tc", "ad", "cd"] {
            assert!(!flags.contains(absent), "{said}");
        }
        ask(&["wiki.corp.test", "AAAA"]).assert_data(&FIRST_V6);
        ask(&["wiki.corp.test", "ANY"]).assert_data(&[FIRST_V4, FIRST_V6].concat());
        ask(&["-x", "100.96.0.3"]).assert_data(&["wiki.corp.test."]);
        ask(&["-x", "fd00:2021:1111:8000::2"]).assert_data(&["wiki.corp.test."]);
        for kind in ["TYPE64", "TYPE65", "TYPE65280", "TYPE257", "NS", "SOA"] {
            ask(&["wiki.corp.test", kind]).assert_data(&[]);
        }
        ask(&["wiki.corp.test", "MX"]).assert_data(&["10 mail.corp.test."]);
        ask(&["wiki.corp.test", "TXT"]).assert_data(&["\"the wiki\""]);
        ask(&["wiki.corp.test", "SRV"]).assert_data(&["0 5 80 wiki.corp.test."]);
        ask(&["_sip._tcp.deep.test", "SRV"]).assert_data(&["0 5 5060 wiki.corp.test."]);
        ask(&["only.exact.test", "TXT"]).assert_data(&["\"exact\""]);
        // What the site says of an alias: where it leads, and nothing that is reached there.
        ask(&["www.corp.test", "CNAME"]).assert_data(&["wiki.corp.test."]);
        assert_eq!(ask(&["www.corp.test", "A"]).answers().len(), 4);
        assert_eq!(ask(&["v4.fam.test", "A"]).answers().len(), 4);
        ask(&["v4.fam.test", "AAAA"]).assert_data(&[]);
        ask(&["v6.fam.test", "A"]).assert_data(&[]);
        assert_eq!(ask(&["v6.fam.test", "AAAA"]).answers().len(), 4);
        // The same by everybody's servers.
        ask(&["www.example.test", "A"]).assert_data(&["192.0.2.80"]);
    }
    for said in [
        world.dig(&["use-application-dns.net", "A"]),
        world.kdig(&["use-application-dns.net", "TXT"]),
        world.dig(&["other.exact.test", "A"]),
        world.dig(&["-x", "192.0.2.80"]),
        world.dig(&["missing.corp.test", "TXT"]),
    ] {
        said.assert_status("NXDOMAIN");
    }
    world.assert_calm();
}

#[test]
#[ignore = "needs root, /dev/net/tun, dig, kdig, knotd, unbound, dnsmasq; .ci/run runs it"]
fn flags_sizes_and_options_are_kept_to() {
    let Some(world) = World::new(&["kdig"], Plan::default()) else {
        return;
    };
    // Made here, from the site, and from everybody's servers.
    for question in [
        ["wiki.corp.test", "A"],
        ["wiki.corp.test", "TXT"],
        ["www.example.test", "A"],
    ] {
        let ask = |more: &[&str]| {
            let said = world.dig(&[&question[..], more].concat());
            said.assert_status("NOERROR");
            assert!(!said.answers().is_empty(), "{said}");
            said
        };
        let said = ask(&["+noedns"]);
        assert_eq!(said.edns(), None, "{said}");
        let said = ask(&["+dnssec"]);
        assert!(said.edns().unwrap().contains("flags: do;"), "{said}");
        let said = ask(&["+nodnssec"]);
        assert!(said.edns().unwrap().contains("flags:;"), "{said}");
        assert!(ask(&["+cdflag"]).flags().contains("cd"));
        assert!(!ask(&["+nocdflag"]).flags().contains("cd"));
        assert!(
            !ask(&["+adflag"]).flags().contains("ad"),
            "nobody validates"
        );
        assert!(!ask(&["+norecurse"]).flags().contains("rd"));
        ask(&["+cookie"]);
        ask(&["+nocookie", "+nsid", "+expire"]);
        ask(&["+ednsopt=65001:deadbeef", "+ednsflags=0x1234"]);
        world
            .dig(&[&question[..], &["+edns=1", "+noednsnegotiation"]].concat())
            .assert_status("BADVERS");
    }
    let said = world.dig(&["wiki.corp.test", "A", "+opcode=status"]);
    said.assert_status("NOTIMP");
    let said = world.dig(&["wiki.corp.test", "A", "-c", "CH"]);
    said.assert_status("NOERROR");
    said.assert_data(&[]);

    // Letters of any case, as they came.
    for (name, kind) in [
        ("WiKi.cOrP.TeSt", "A"),
        ("wIkI.CoRp.tEsT", "TXT"),
        ("wWw.ExAmPlE.tEsT", "A"),
    ] {
        let said = world.dig(&[name, kind]);
        said.assert_status("NOERROR");
        assert!(said.question().starts_with(&format!(";{name}.")), "{said}");
        assert!(!said.answers().is_empty(), "{said}");
    }

    // 2,500 bytes of text, in datagrams of every size and in a stream.
    let text_in = |said: &Said| -> usize {
        let data = said.data().concat();
        data.chars().filter(|character| *character == 'x').count()
    };
    for (size, most) in [
        ("512", 512),
        ("1232", 1_232),
        ("1400", 1_400),
        ("4096", 1_232),
    ] {
        let size = format!("+bufsize={size}");
        let said = world.dig(&["long.corp.test", "TXT", "+ignore", &size]);
        assert!(said.flags().contains("tc"), "{said}");
        assert!(said.size() <= most, "{said}");
        assert_eq!(text_in(&said), 0);
    }
    let said = world.dig(&["long.corp.test", "TXT", "+noedns", "+ignore"]);
    assert!(said.flags().contains("tc") && said.size() <= 512, "{said}");
    // Whoever sees that it is cut off asks again by TCP.
    for said in [
        world.dig(&["long.corp.test", "TXT"]),
        world.dig(&["long.corp.test", "TXT", "+tcp"]),
        world.kdig(&["long.corp.test", "TXT", "+tcp"]),
    ] {
        said.assert_status("NOERROR");
        assert!(!said.flags().contains("tc"), "{said}");
        assert_eq!(text_in(&said), LONG_TEXT, "{said}");
    }
    world.assert_calm();
}

#[test]
#[ignore = "needs root, /dev/net/tun, dig, kdig, knotd, unbound, dnsmasq; .ci/run runs it"]
fn many_questions_at_once_and_in_one_connection_are_answered() {
    let Some(world) = World::new(&["kdig"], Plan::default()) else {
        return;
    };
    let at = format!("@{}", world.sentinels()[0]);
    let client = world.network.namespace("client");
    let questions = [
        ["wiki.corp.test", "TXT"],
        ["a.b.c.deep.test", "A"],
        ["www.example.test", "A"],
        ["n7.example.test", "A"],
        ["only.exact.test", "TXT"],
        ["long.corp.test", "TXT"],
    ];
    // Nothing is known and nothing connected when they come.
    let all: Vec<_> = (0..24)
        .map(|number| {
            let [name, kind] = questions[number % questions.len()];
            [["+notcp", "+tcp", "+notcp"][number % 3], name, kind]
        })
        .collect();
    for said in world.at_once("dig", &all) {
        said.assert_status("NOERROR");
        assert!(!said.answers().is_empty(), "{said}");
    }

    for program in ["dig", "kdig"] {
        let words = [&[at.as_str(), "+tcp", "+keepopen"][..], &questions.concat()].concat();
        let text = stdout(command(client, program).args(words));
        let answers = text.matches("status: NOERROR").count();
        assert_eq!(answers, questions.len(), "{text}");
    }
    assert_ten_streams(&world);
    world.assert_calm();
}

#[test]
#[ignore = "needs root, /dev/net/tun, dig, kdig, knotd, unbound, dnsmasq; .ci/run runs it"]
fn whoever_gets_no_answer_is_told_why() {
    let Some(mut world) = World::new(&["kdig"], Plan::default()) else {
        return;
    };
    // A server at the site that is mute.
    world.service("site").freeze();
    let questions = [["wiki.corp.test", "TXT"], ["wiki.corp.test", "MX"]];
    for said in world.at_once("dig", &questions) {
        said.assert_status("SERVFAIL");
        said.assert_reason(22, "no name server of the site answered");
    }
    world.service("site").thaw();
    world
        .dig(&["wiki.corp.test", "TXT"])
        .assert_data(&["\"the wiki\""]);

    // A server of everybody's that is mute.
    world.service("resolver").freeze();
    let questions = [
        ["www.example.test", "+edns"],
        ["n1.example.test", "+tcp"],
        // There is no room for a reason.
        ["n2.example.test", "+noedns"],
    ];
    for (said, words) in world.at_once("kdig", &questions).iter().zip(questions) {
        said.assert_status("SERVFAIL");
        match words {
            [_, "+noedns"] => assert_eq!(said.reasons(), [], "{said}"),
            _ => said.assert_reason(22, "no name server answered in time"),
        }
    }
    world.service("resolver").thaw();
    world
        .dig(&["www.example.test", "A"])
        .assert_data(&["192.0.2.80"]);
    world.end("resolver");
    let said = world.dig(&["n3.example.test", "A"]);
    said.assert_status("SERVFAIL");
    said.assert_reason(23, "no name server can be asked");

    // The gateway is gone, and the portal knows.
    world.stop("client");
    world.kill("gateway");
    world.start("client");
    for said in [
        world.dig(&["wiki.corp.test", "TXT"]),
        world.kdig(&["only.exact.test", "MX", "+tcp"]),
    ] {
        said.assert_status("SERVFAIL");
        said.assert_reason(22, "no gateway of the resource's site is online");
    }
    let said = world.dig(&["wiki.corp.test", "A"]);
    said.assert_status("NOERROR");
    assert_eq!(said.answers().len(), 4, "it may come back at any time");
    said.assert_reason(22, "no gateway of the resource's site is online");
}

#[test]
#[ignore = "needs root, /dev/net/tun, dig, kdig, curl, knotd, unbound, dnsmasq; .ci/run runs it"]
fn a_resource_that_policy_refuses_is_said_to_be_refused() {
    let Some(mut world) = World::without_client(&["kdig", "curl"], Plan::default()) else {
        return;
    };
    // The client asks before it hears that it may no longer: it hears of that never.
    let portal = world.portal();
    let deaf = SocketAddr::new(portal.ip(), 81);
    let place = world.network.namespace("portal");
    pass_on(place, deaf, portal, "resource_deleted");
    world.client.portal = Some(deaf);
    world.start("client");
    world.wait_relays();
    world.apply_without("corp", "");

    let refused = "access to this resource is refused by policy";
    for said in [
        world.dig(&["wiki.corp.test", "TXT"]),
        world.kdig(&["wiki.corp.test", "MX", "+tcp"]),
    ] {
        said.assert_status("SERVFAIL");
        said.assert_reason(18, refused);
    }
    for said in [
        world.dig(&["wiki.corp.test", "A"]),
        world.kdig(&["wiki.corp.test", "AAAA"]),
    ] {
        said.assert_status("NOERROR");
        said.assert_reason(18, refused);
    }
    let clock = Clock::new();
    let began_at = clock.now();
    let address = SocketAddr::new(FIRST_V4[0].parse().unwrap(), 80);
    let connect = || TcpStream::connect_timeout(&address, PATIENCE);
    let error = run_in(world.network.namespace("client"), connect)
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
    assert!(clock.now() - began_at < Duration::from_secs(1));
    assert_eq!(world.curl(&["http://wiki.corp.test/"]), Err(7));
    // What is still allowed is.
    assert!(world.curl(&["http://only.exact.test/"]).is_ok());
    world.assert_calm();
}

#[test]
#[ignore = "needs root, /dev/net/tun, dig, curl, knotd, unbound, dnsmasq; .ci/run runs it"]
fn a_name_whose_resource_is_taken_away_is_everybodys_and_has_its_addresses_when_it_is_back() {
    let Some(world) = World::new(&["curl"], Plan::default()) else {
        return;
    };
    world.dig(&["wiki.corp.test", "A"]).assert_data(&FIRST_V4);
    assert!(world.curl(&["http://wiki.corp.test/"]).is_ok());
    world.apply_without("corp", "");
    let is_gone = || {
        let said = world.dig(&["wiki.corp.test", "A"]);
        (said.status() == Some("NXDOMAIN")).then_some(())
    };
    assert!(wait_for(PATIENCE, is_gone).is_some());
    let old = format!("http://{}/", FIRST_V4[0]);
    assert_eq!(world.curl(&[&old]), Err(7), "it leads nowhere now");
    world
        .dig(&["-x", FIRST_V4[0]])
        .assert_data(&["wiki.corp.test."]);

    world.apply("");
    let is_back = || {
        let data = world.dig(&["wiki.corp.test", "A"]).data();
        (data == FIRST_V4).then_some(())
    };
    assert!(wait_for(PATIENCE, is_back).is_some());
    assert!(world.curl(&[&old]).is_ok());
    world.assert_calm();
}

#[test]
#[ignore = "needs root, /dev/net/tun, dig, delv, keymgr, knotd, unbound, dnsmasq; .ci/run runs it"]
fn delv_validates_a_signed_zone_through_the_client() {
    let plan = Plan {
        is_signed: true,
        ..Plan::default()
    };
    let Some(world) = World::new(&["delv", "keymgr"], plan) else {
        return;
    };
    let at = format!("@{}", world.sentinels()[0]);
    let anchor = world.file("anchor");
    std::fs::write(&anchor, &world.anchor).unwrap();
    let delv = |words: &[&str]| {
        let mut delv = command(world.network.namespace("client"), "delv");
        delv.args([&at, "-a", anchor.to_str().unwrap(), "+root=signed.test"])
            .args(words);
        let output = delv.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        text(&output.stdout) + &text(&output.stderr)
    };
    let said = delv(&["www.signed.test", "A"]);
    assert!(said.contains("; fully validated"), "{said}");
    assert!(
        said.contains("192.0.2.81") && said.contains("RRSIG"),
        "{said}"
    );
    // By TCP, because it doesn't fit.
    let said = delv(&["long.signed.test", "TXT"]);
    assert!(said.contains("; fully validated"), "{said}");
    assert!(said.matches('y').count() >= LONG_TEXT, "{said}");
    // That there is nothing is proved as well.
    let said = delv(&["missing.signed.test", "A"]);
    assert!(
        said.contains("; negative response, fully validated"),
        "{said}"
    );

    // It would notice.
    let key = world.anchor.replace(" 257 3 13 \"", " 257 3 13 \"AAAA");
    std::fs::write(&anchor, key).unwrap();
    let said = delv(&["www.signed.test", "A"]);
    assert!(!said.contains("; fully validated"), "{said}");
    world.assert_calm();
}

/// A program may have ten connections to one address, and another one when one of them is over (client.md §4.7).
fn assert_ten_streams(world: &World) {
    let at = SocketAddr::new(world.sentinels()[0], 53);
    let client = world.network.namespace("client");
    let connect = || run_in(client, || TcpStream::connect_timeout(&at, PATIENCE)).unwrap();
    let mut streams: Vec<_> = (0..10).map(|_| connect().unwrap()).collect();
    let refused = connect().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    drop(streams.pop());
    assert!(wait_for(PATIENCE, || connect().ok()).is_some());
}
