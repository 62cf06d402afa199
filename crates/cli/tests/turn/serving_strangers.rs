//! Programs of others use our relay, which stands alone.

use std::process::{Child, Command, Stdio};

use connlib_os::namespace::command_in;

use crate::coturn::{have, version};
use crate::scene::{SECRET, Scene};

/// Messages of each client.
const MESSAGES: &str = "-n50";

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_stun_client_learns_its_address() {
    if !["turnutils_stunclient", "turnserver"].into_iter().all(have) {
        return;
    }
    let scene = Scene::lay();
    for address in scene.addresses("relay") {
        let said = scene.run("turnutils_stunclient", &[&address.to_string()]);

        let own = scene.addresses("client");
        let own = own.iter().find(|own| own.is_ipv4() == address.is_ipv4());
        let line = format!("UDP reflexive addr: {}:", own.unwrap());
        assert!(said.contains(&line), "{said}");
        let summary = said.lines().find(|said| said.contains(&line)).unwrap();
        println!("turnutils_stunclient {}: {summary}", version());
    }
    let seen = scene.finish("a STUN client");
    assert!(
        seen.is_none_or(|seen| seen.messages >= 4),
        "asked and answered twice"
    );
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn turn_clients_of_others_reach_a_peer_and_each_other() {
    if !["turnutils_uclient", "turnutils_peer"]
        .into_iter()
        .all(have)
    {
        return;
    }
    let scene = Scene::lay();
    let _echoes = Echoes::start(&scene);
    let [relay_v4, relay_v6] = scene.addresses("relay").map(|address| address.to_string());
    let [peer_v4, peer_v6] = scene.addresses("peer").map(|address| address.to_string());
    let cases: [(&str, &[&str], &str); 12] = [
        ("channels", &["-c", "-e", &peer_v4], &relay_v4),
        ("channels, IPv6", &["-c", "-x", "-e", &peer_v6], &relay_v6),
        (
            "channels, IPv4 to IPv6",
            &["-c", "-x", "-e", &peer_v6],
            &relay_v4,
        ),
        (
            "channels, IPv6 to IPv4",
            &["-c", "-X", "-e", &peer_v4],
            &relay_v6,
        ),
        ("Send", &["-c", "-s", "-e", &peer_v4], &relay_v4),
        ("Send, IPv6", &["-c", "-s", "-x", "-e", &peer_v6], &relay_v6),
        (
            "Send, IPv4 to IPv6",
            &["-c", "-s", "-x", "-e", &peer_v6],
            &relay_v4,
        ),
        ("pairs of ports", &["-e", &peer_v4], &relay_v4),
        ("channels, both sides relayed", &["-c", "-y"], &relay_v4),
        ("Send, both sides relayed", &["-c", "-s", "-y"], &relay_v4),
        (
            "twenty clients",
            &["-c", "-m", "20", "-e", &peer_v4],
            &relay_v4,
        ),
        (
            "requests of all kinds",
            &["-c", "-G", "-e", &peer_v4],
            &relay_v4,
        ),
    ];
    for (name, arguments, relay) in cases {
        let all = [
            &["-W", SECRET, "-u", "alice", MESSAGES],
            arguments,
            &[relay],
        ]
        .concat();
        let said = scene.run("turnutils_uclient", &all);

        let summary = said
            .lines()
            .find(|line| line.contains("Total lost packets"));
        let summary = summary.unwrap_or_else(|| panic!("{name}: {said}"));
        println!("turnutils_uclient {}: {name}: {summary}", version());
        assert!(summary.contains("Total lost packets 0 "), "{name}: {said}");
    }
    let seen = scene.finish("TURN clients");
    assert!(seen.is_none_or(|seen| seen.messages > 0 && seen.channel_data > 0));
}

/// Somebody who sends back whatever comes, over both IP versions.
struct Echoes([Child; 2]);

impl Echoes {
    fn start(scene: &Scene) -> Self {
        let echoes = scene.addresses("peer").map(|address| {
            let mut command = Command::new("turnutils_peer");
            command_in(&mut command, Some(scene.network.namespace("peer"))).unwrap();
            let command = command.args(["-L", &address.to_string(), "-p", "3480"]);
            quiet(command).spawn().unwrap()
        });

        Self(echoes)
    }
}

impl Drop for Echoes {
    fn drop(&mut self) {
        for echo in &mut self.0 {
            // It fails if the process has ended.
            let _ = echo.kill();
            let _ = echo.wait();
        }
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}
