//! Programs that use names: curl, getent, Python.

use std::net::IpAddr;
use std::time::Duration;

use connlib_os::clock::Clock;

use crate::tools::{output, say, stdout};
use crate::world::{HOST, Plan, World};

/// The round trip of the link in [`the_first_fetch_of_a_cold_client_is_fast`].
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// What the first fetch may take besides round trips.
const ALLOWANCE: Duration = Duration::from_millis(50);

#[test]
#[ignore = "needs root, /dev/net/tun, curl, getent, python3, knotd, unbound, dnsmasq; .ci/run runs it"]
fn programs_reach_names_as_they_do_without_us() {
    let plan = Plan {
        network: "search_domain = \"corp.test\"".into(),
        ..Plan::default()
    };
    let Some(world) = World::new(&["curl", "getent", "python3"], plan) else {
        return;
    };
    let fetch = |words: &[&str]| {
        let body = world.curl(words);
        let body = body.unwrap_or_else(|code| panic!("{words:?}: curl ends with {code}"));
        body.trim_end().parse::<IpAddr>().unwrap()
    };
    for name in [
        "wiki.corp.test",
        "WIKI.Corp.Test",
        "wiki.corp.test.",
        "www.corp.test",
        // Completed by the search domain.
        "wiki",
        "www",
    ] {
        let reached = fetch(&[&format!("http://{name}/")]);
        assert!(HOST.contains(&reached), "{name}: {reached}");
    }
    for (words, reached) in [
        (&["http://a.b.c.deep.test/"][..], HOST[0]),
        (&["http://only.exact.test/"], HOST[0]),
        (&["http://mail.corp.test/"], HOST[1]),
        // The static names of the gateway's machine count.
        (&["http://hosted.corp.test/"], HOST[1]),
        (&["-4", "http://v4.fam.test/"], HOST[0]),
        (&["http://v4.fam.test/"], HOST[0]),
        (&["http://v6.fam.test/"], HOST[2]),
        (&["-6", "http://v6.fam.test/"], HOST[2]),
    ] {
        assert_eq!(fetch(words), reached, "{words:?}");
    }
    assert!([HOST[2], HOST[3]].contains(&fetch(&["-6", "http://wiki/"])));

    // libc, by getaddrinfo(3).
    let script = "import socket, sys\nfor it in socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM): print(it[4][0])";
    for name in ["wiki.corp.test", "wiki"] {
        let python = stdout(world.on_client("python3").args(["-c", script, name]));
        let getent = stdout(world.on_client("getent").args(["ahosts", name]));
        let getent = getent
            .lines()
            .filter(|line| line.contains("STREAM"))
            .map(|line| line.split(' ').next().unwrap());
        for listed in [python.lines().collect::<Vec<_>>(), getent.collect()] {
            assert_eq!(listed.len(), 8, "{listed:?}");
            for address in listed {
                let is_ours =
                    address.starts_with("100.96.0.") || address.starts_with("fd00:2021:1111:8000:");
                assert!(is_ours, "{address}");
            }
        }
    }
    let public = stdout(
        world
            .on_client("getent")
            .args(["ahosts", "www.example.test"]),
    );
    assert!(public.starts_with("192.0.2.80 "), "{public}");
    let missing = output(
        world
            .on_client("getent")
            .args(["ahosts", "missing.example.test"]),
    );
    assert_eq!(missing.status.code(), Some(2), "not found (getent(1))");
    world.assert_calm();
}

#[test]
#[ignore = "needs root, /dev/net/tun, curl, knotd, unbound, dnsmasq; .ci/run runs it"]
fn a_family_that_a_name_is_without_is_refused_at_once() {
    let Some(world) = World::new(&["curl"], Plan::default()) else {
        return;
    };
    // `four` has an IPv4 address alone, which the gateway finds out; the resource of `v4` is said to have none other.
    for name in ["four.corp.test", "v4.fam.test"] {
        let body = world.curl(&["-4", &format!("http://{name}/")]);
        assert_eq!(body, Ok(format!("{}\n", HOST[0])), "{name}");
    }
    // Unreachable, which a packet comes back to say; and without any address.
    let address = &world.dig(&["four.corp.test", "AAAA"]).data()[0];
    for url in [format!("http://[{address}]/"), "http://v4.fam.test/".into()] {
        let clock = Clock::new();
        let began_at = clock.now();
        assert_eq!(world.curl(&["-6", &url]), Err(7), "{url}");
        let took = clock.now() - began_at;
        assert!(took < Duration::from_secs(1), "{url}: {took:?}");
    }
    // Between several addresses curl itself makes pauses.
    assert_eq!(world.curl(&["-6", "http://four.corp.test/"]), Err(7));
    assert!(world.curl(&["http://four.corp.test/"]).is_ok());
    world.assert_calm();
}

#[test]
#[ignore = "needs root, /dev/net/tun, curl, knotd, unbound, dnsmasq; .ci/run runs it"]
fn a_client_that_was_killed_gives_the_same_names_the_same_addresses() {
    let Some(mut world) = World::new(&["curl"], Plan::default()) else {
        return;
    };
    let names = [
        "a.b.c.deep.test",
        "wiki.corp.test",
        "only.exact.test",
        "v6.fam.test",
    ];
    let addresses = |world: &World| {
        names.map(|name| {
            let said = [world.dig(&[name, "A"]), world.dig(&[name, "AAAA"])];
            said.map(|said| said.data()).concat()
        })
    };
    let before = addresses(&world);
    assert_eq!(before.each_ref().map(Vec::len), [8, 8, 8, 4]);
    let of_wiki = format!("http://{}/", before[1][2]);
    assert!(world.curl(&[&of_wiki]).is_ok());

    world.kill("client");
    world.start("client");
    // A program that asked before goes on with what it knows.
    assert!(world.curl(&[&of_wiki]).is_ok(), "{of_wiki}");
    assert!(world.curl(&["http://only.exact.test/"]).is_ok());
    assert_eq!(addresses(&world), before);
    // Others are given others.
    let fresh = world.dig(&["mail.corp.test", "A"]).data();
    assert_eq!(fresh.len(), 4);
    assert!(
        before.iter().all(|used| !used.contains(&fresh[0])),
        "{fresh:?}"
    );
    world.assert_calm();
}

#[test]
#[ignore = "needs root, /dev/net/tun, curl, knotd, unbound, dnsmasq; .ci/run runs it"]
fn the_first_fetch_of_a_cold_client_is_fast() {
    let plan = Plan {
        is_measured: true,
        ..Plan::default()
    };
    let Some(mut world) = World::without_client(&["curl"], plan) else {
        return;
    };
    let _slow = world.slow_down(ROUND_TRIP);
    let mut times: Vec<_> = (0..10)
        .map(|_| {
            world.start("client");
            world.wait_relays();
            world.sentinels();
            let words = ["-w", "%{stderr}%{time_total}", "http://wiki.corp.test/"];
            let output = output(world.on_client("curl").args(["-q", "--silent"]).args(words));
            assert!(output.status.success(), "{output:?}");
            let seconds: f64 = String::from_utf8(output.stderr).unwrap().parse().unwrap();
            world.stop("client");
            Duration::from_secs_f64(seconds)
        })
        .collect();
    times.sort_unstable();
    let median = times[times.len() / 2];
    // The portal, and three round trips with the gateway; whom that asks is near it.
    let budget = ROUND_TRIP + 3 * ROUND_TRIP + ALLOWANCE;
    say(&format!(
        "first curl http://name/ of a cold client, 20 ms away: median {median:?}, {:?} to {:?}, of {budget:?}",
        times[0], times[9]
    ));
    assert!(median < 4 * budget, "{times:?}");
    world.assert_calm();
}
