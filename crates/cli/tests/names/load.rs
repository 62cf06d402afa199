//! Many questions a second.

use std::fmt::Write as _;
use std::fs;

use crate::tools::{command, say, stdout};
use crate::world::{Plan, World};

#[test]
#[ignore = "needs root, /dev/net/tun, dnsperf, knotd, unbound, dnsmasq; .ci/run runs it"]
fn nothing_is_lost_of_as_many_questions_as_there_can_be() {
    let plan = Plan {
        is_measured: true,
        ..Plan::default()
    };
    let Some(world) = World::new(&["dnsperf"], plan) else {
        return;
    };
    let mut questions = String::new();
    for number in 0..100 {
        writeln!(questions, "h{number}.corp.test A\nh{number}.corp.test AAAA").unwrap();
        writeln!(
            questions,
            "{number}.x.deep.test A\nn{number}.example.test A"
        )
        .unwrap();
        questions.push_str("wiki.corp.test TXT\nonly.exact.test HTTPS\n");
    }
    let file = world.file("questions");
    fs::write(&file, questions).unwrap();
    for (carrier, more) in [
        ("udp", ["-c", "4", "-l", "5"]),
        ("tcp", ["-c", "8", "-l", "2"]),
    ] {
        let mut dnsperf = command(world.network.namespace("client"), "dnsperf");
        dnsperf
            .args(["-s", &world.sentinels()[0].to_string(), "-m", carrier])
            .args(["-q", "50", "-d", file.to_str().unwrap()])
            .args(more);
        let said = stdout(&mut dnsperf);
        let value = |name: &str| {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(name));
            line.unwrap_or_else(|| panic!("{said}")).trim().to_owned()
        };
        say(&format!(
            "dnsperf by {carrier} through the TUN: {} q/s, latency {}, lost {}",
            value("Queries per second:"),
            value("Average Latency (s):"),
            value("Queries lost:"),
        ));
        assert!(value("Queries lost:").starts_with("0 "), "{said}");
        let codes = value("Response codes:");
        assert!(
            codes.starts_with("NOERROR ") && codes.ends_with("(100.00%)"),
            "{said}"
        );
    }
    // What was answered is right.
    assert_eq!(world.dig(&["h7.corp.test", "A"]).answers().len(), 4);
    world
        .dig(&["n7.example.test", "A"])
        .assert_data(&["192.0.2.7"]);
    world.assert_calm();
}
