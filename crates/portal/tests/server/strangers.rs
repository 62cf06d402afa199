//! Programs that nobody here wrote talk to the portal: the framework's own client, a WebSocket client, a TLS client.
//!
//! Without a program its test says that it was skipped; with `CI` set it fails.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use connlib_portal::server::{Server, ServerConfig, TlsFiles};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::peers::{Portal, config};

const PHOENIX: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/server/strangers/phoenix.js"
);

/// The public key of the vectors (portal-protocol.md §14.1).
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[tokio::test]
async fn the_frameworks_own_client_joins_asks_and_leaves() {
    let Some(packages) = packages("phoenix") else {
        return;
    };
    let portal = Portal::start().await;
    let token = portal.client_token("alice").await;
    let params =
        json!({"token": token.expose(), "external_id": "js", "name": "js", "public_key": KEY});
    for version in ["1.0.0", "2.0.0"] {
        for path in ["/client", "/client/v2"] {
            let output = Command::new("node")
                .env("NODE_PATH", &packages)
                .arg(PHOENIX)
                .arg(format!("ws://{}{path}", portal.addr()))
                .args([params.to_string(), version.to_owned()])
                .output()
                .await
                .unwrap();

            assert_eq!(
                said(&output),
                "joined\ninit lan\nrelays_presence 0\nheartbeat\nerror unknown_message\nleft\n",
                "{version} {path}"
            );
        }
    }
}

#[tokio::test]
async fn wscat_joins_and_is_told_what_there_is() {
    let Some(packages) = packages("wscat") else {
        return;
    };
    let portal = Portal::start().await;
    let token = portal.gateway_token().await;
    let key = crate::peers::encode(KEY);
    let address = portal.addr();
    let url = format!("ws://{address}/gateway/v2/websocket?external_id=w&name=w&public_key={key}");
    let join = r#"{"topic":"gateway","event":"phx_join","payload":null,"ref":0}"#;

    let mut client = Command::new("node")
        .arg(packages.join("wscat/bin/wscat"))
        .args(["--connect", &url, "--header"])
        .arg(format!("x-authorization: Bearer {}", token.expose()))
        .args(["--execute", join, "--wait", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It ends at once when there is nothing more to read.
    let stdin = client.stdin.take();
    let output = client.wait_with_output().await.unwrap();
    drop(stdin);

    let said = said(&output);
    assert!(said.contains(r#""event":"phx_reply""#), "{said}");
    assert!(said.contains(r#""event":"init""#), "{said}");
}

#[tokio::test]
async fn openssl_trusts_the_certificate_and_is_answered() {
    if !have("openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let server = Server::start(ServerConfig {
        tls: Some(TlsFiles {
            cert: cert.clone(),
            key,
        }),
        ..config(&dir)
    });
    let server = server.await.unwrap();

    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", version])
            .args(["-servername", "localhost", "-verify_hostname", "localhost"])
            .arg("-CAfile")
            .arg(&cert)
            .arg("-connect")
            .arg(server.local_addr().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = client.stdin.take().unwrap();
        let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stdin.write_all(request.as_bytes()).await.unwrap();
        let output = client.wait_with_output().await.unwrap();

        let said = said(&output);
        assert!(said.starts_with("HTTP/1.1 200"), "{version}: {said}");
        assert!(said.ends_with("ok\n"), "{version}: {said}");
    }
}

/// What a program said, and its complaints if it failed.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => text,
        false => text + &String::from_utf8_lossy(&output.stderr),
    }
}

/// Where the packages of Node.js are, if this one is among them.
fn packages(name: &str) -> Option<PathBuf> {
    let packages = PathBuf::from(std::env::var_os("NODE_PATH").unwrap_or_default());
    let is_there = have("node") && packages.join(name).is_dir();
    if !is_there {
        skip(&format!("node with its package {name} (NODE_PATH)"));
    }

    is_there.then_some(packages)
}

fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    });
    if !found {
        skip(program);
    }

    found
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn skip(missing: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "{missing} is missing: `.ci/run` installs it"
    );
    eprintln!("SKIPPED: {missing} is missing; README says how it is installed");
}
