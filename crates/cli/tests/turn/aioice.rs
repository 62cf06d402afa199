//! aioice, which is ICE and a TURN client in Python: two ends of it meet at our relay.

use std::process::{Command, Stdio};

use crate::scene::{SECRET, Scene};

/// The Python that Debian's packages are for.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/turn/aioice_relayed.py");

/// Datagrams each way.
const DATAGRAMS: &str = "200";

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn two_ends_of_others_meet_at_our_relay_and_lose_nothing() {
    if !has_aioice() {
        return;
    }
    let scene = Scene::lay();
    for server in scene.addresses("relay") {
        let server = server.to_string();
        let said = scene.run(PYTHON, &[SCRIPT, &server, SECRET, DATAGRAMS]);

        let summary = said.lines().find(|line| line.starts_with("aioice "));
        let summary = summary.unwrap_or_else(|| panic!("{server}: {said}"));
        println!("{server}: {summary}");
        let all = ": 400 sent, 400 received, relayed, 2 allocations given back";
        assert!(summary.ends_with(all), "{server}: {said}");
    }
    let seen = scene.finish("two ends by aioice");
    // Each datagram comes to the relay and leaves it under a channel.
    assert!(seen.is_none_or(|seen| seen.channel_data >= 1_600));
}

/// Whether there is aioice. Where there isn't, that is said; in CI it is a failure.
pub(crate) fn has_aioice() -> bool {
    let mut python = Command::new(PYTHON);
    python.args(["-c", "import aioice"]).stderr(Stdio::null());
    let has_aioice = python.status().is_ok_and(|status| status.success());
    if !has_aioice {
        assert!(std::env::var_os("CI").is_none(), "aioice is missing");
        println!(
            "SKIPPED: there is no aioice; install it by `pip install --target DIRECTORY aioice` and name that in PYTHONPATH"
        );
    }

    has_aioice
}
