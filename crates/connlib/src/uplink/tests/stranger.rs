//! A portal that stands on another WebSocket library, in another language.
//!
//! Without Node.js and its package `ws` the test says that it was skipped; with `CI` set it fails.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::*;

const SERVER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/uplink/tests/stranger/server.js"
);

#[tokio::test]
async fn a_portal_on_another_library_is_joined_heard_and_joined_again() {
    let Some(mut portal) = Stranger::start().await else {
        return;
    };
    let mut rig: Rig = Rig::towards(&format!("ws://127.0.0.1:{}", portal.port)).await;
    rig.connect(KEY).await;

    for (number, is_last) in [(1, false), (2, true)] {
        let opened = portal.line().await;
        assert_eq!(opened, "open /client/v2/websocket Bearer abc", "{number}");
        let joined = portal.line().await;
        assert_eq!(joined, "heard text client phx_join null 0");
        let FromUplink::Joined(Generation::V2) = rig.event().await else {
            panic!("it isn't joined");
        };
        let greeting = portal.line().await;
        let capabilities = r#"set_snownet_capabilities {"iceless":false}"#;
        assert_eq!(greeting, format!("heard text client {capabilities} 1"));
        let FromUplink::Message(FromPortal::ResourceDeleted(id)) = rig.event().await else {
            panic!("it is told of nothing");
        };
        assert_eq!(id.to_string(), "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11");

        rig.say(ToPortal::NoRelays(Empty {})).await;
        assert_eq!(portal.line().await, "heard text client no_relays {} 2");
        let FromUplink::Message(FromPortal::RelaysPresence(presence)) = rig.event().await else {
            panic!("it is told of no relays");
        };
        assert!(presence.connected.is_empty());
        if is_last {
            break;
        }
        let FromUplink::Away = rig.event().await else {
            panic!("it isn't lost");
        };
        // The frame that closes is echoed.
        assert_eq!(portal.line().await, "closed 1012");
    }

    // Told to connect with another key, it says goodbye first.
    rig.connect(OTHER_KEY).await;
    while portal.line().await != "closed 1000" {}
}

struct Stranger {
    port: u16,
    lines: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Stranger {
    async fn start() -> Option<Self> {
        let packages = PathBuf::from(std::env::var_os("NODE_PATH").unwrap_or_default());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let has_node = std::env::split_paths(&path).any(|place| place.join("node").is_file());
        if !has_node || !packages.join("ws").is_dir() {
            skip();
            return None;
        }
        let mut process = Command::new("node")
            .arg(SERVER)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let mut stranger = Self {
            port: 0,
            lines: stdout.lines(),
            _process: process,
        };
        let line = stranger.line().await;
        stranger.port = line.strip_prefix("port ").unwrap().parse().unwrap();

        Some(stranger)
    }

    async fn line(&mut self) -> String {
        self.lines.next_line().await.unwrap().unwrap()
    }
}

fn skip() {
    let missing = "node with its package ws (NODE_PATH)";
    assert!(
        std::env::var_os("CI").is_none(),
        "{missing} is missing: `.ci/run` installs it"
    );
    eprintln!("SKIPPED: {missing} is missing; README says how it is installed");
}
