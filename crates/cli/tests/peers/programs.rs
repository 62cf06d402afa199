//! Programs that people try a network with.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::site::{HOST_V4, HOST_V6, Site, rules};
use crate::tools::{PATIENCE, wait_for};

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn ping_traceroute_and_tracepath_see_the_way() {
    let Some(site) = Site::new(&["ping", "traceroute", "tracepath"]) else {
        return;
    };
    for (version, to) in [
        ("-4", HOST_V4[0]),
        ("-6", HOST_V6[0]),
        ("-4", "both.corp.test"),
        ("-6", "both.corp.test"),
        ("-4", "four.corp.test"),
        ("-6", "six.corp.test"),
    ] {
        let words = ["ping", version, "-n", "-c", "3", "-i", "0.1", "-W", "5", to];
        let said = site.run(&words);
        assert!(said.contains("3 received, 0% packet loss"), "{said}");
    }

    // Two hops: the gateway, which is known by its address in the tunnel, and the host.
    let addresses = site.world.status("gateway")["addresses"].clone();
    let is_gateway = |line: &str| {
        addresses
            .as_array()
            .unwrap()
            .iter()
            .any(|ip| line.contains(ip.as_str().unwrap()))
    };
    for how in [&[][..], &["-I"], &["-T", "-p", "80"]] {
        for to in [HOST_V4[0], HOST_V6[0]] {
            let words = [
                &["traceroute", "-n", "-q", "1", "-w", "5", "-m", "4"],
                how,
                &[to],
            ]
            .concat();
            let said = site.run(&words);
            let hops: Vec<_> = said.lines().skip(1).collect();
            assert!(
                hops.len() == 2 && is_gateway(hops[0]) && hops[1].contains(to),
                "{how:?}: {said}"
            );
        }
    }
    // Behind a name everything is that name.
    let said = site.run(&[
        "traceroute",
        "-n",
        "-q",
        "1",
        "-w",
        "5",
        "-m",
        "4",
        "-4",
        "four.corp.test",
    ]);
    let hops: Vec<_> = said.lines().skip(1).collect();
    assert!(hops.len() == 2 && hops[1].contains(" 100.96."), "{said}");
    let said = site.run(&["tracepath", "-n", "-m", "4", HOST_V4[0]]);
    assert!(
        said.contains("reached") && said.contains("pmtu 1280"),
        "{said}"
    );
    site.assert_calm();
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn netcat_curl_and_iperf_get_through() {
    let Some(site) = Site::new(&["nc", "curl", "iperf3"]) else {
        return;
    };
    for to in [HOST_V4[0], "both.corp.test"] {
        for carrier in [&["-N"][..], &["-u", "-w", "2"]] {
            let server = site.serve(
                &[&["nc", "-v", "-l"], &carrier[..1], &["-n", "5000"]].concat(),
                "on 0.0.0.0 5000",
            );
            let mut sender = site.on_client(&[&["nc", "-4"], carrier, &[to, "5000"]].concat());
            let mut sender = sender.stdin(Stdio::piped()).spawn().unwrap();
            sender
                .stdin
                .take()
                .unwrap()
                .write_all(b"a line of text\n")
                .unwrap();
            let has_come = wait_for(PATIENCE, || {
                server.log().contains("a line of text").then_some(())
            });
            assert!(has_come.is_some(), "{to} {carrier:?}: {}", server.log());
            sender.wait().unwrap();
        }
    }
    for to in [
        HOST_V4[0],
        "both.corp.test",
        "four.corp.test",
        "six.corp.test",
        "[fd00:20::10]",
    ] {
        let said = site.run(&["curl", "-sS", "--max-time", "10", &format!("http://{to}/")]);
        // As the gateway, which the host knows.
        let asks = said.split(' ').next().unwrap();
        assert!(["10.20.0.1", "fd00:20::1"].contains(&asks), "{to}: {said}");
    }

    // Over IPv6 its answers to datagrams come from whichever of the host's addresses the kernel likes best.
    let _server = site.serve(&["iperf3", "-s", "--forceflush"], "listening");
    for how in [
        &[][..],
        &["-R"],
        &["-u", "-b", "20M"],
        &["-u", "-b", "20M", "-R"],
    ] {
        let words = [
            &["iperf3", "-4", "-c", "both.corp.test", "-t", "1", "--json"],
            how,
        ]
        .concat();
        let received = |report: &Value| {
            let end = &report["end"];
            let sum = end["sum_received"]["bytes"].as_u64();
            sum.or_else(|| end["sum"]["bytes"].as_u64())
        };
        // The server takes one at a time, and may not be done with the one before.
        let bytes = wait_for(PATIENCE, || {
            let report = serde_json::from_str(&site.attempt(&words).1).ok()?;
            received(&report)
        });
        assert!(bytes > Some(100_000), "{how:?}: {bytes:?}");
    }
    site.assert_calm();
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn the_firewall_shows_one_table_of_ours_and_none_afterwards() {
    let Some(mut site) = Site::new(&[]) else {
        return;
    };
    let gateway = |site: &Site| rules(site.world.network.namespace("gateway"));
    let shown = gateway(&site);
    assert_eq!(shown.matches("table ").count(), 1, "{shown}");
    assert_eq!(shown.matches("masquerade").count(), 2, "{shown}");
    site.world.stop("gateway");
    assert_eq!(gateway(&site), "");
    site.assert_calm();
}
