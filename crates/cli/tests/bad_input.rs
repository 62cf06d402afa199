//! What the program says and how it ends when something is wrong: exit codes are a promise (cli.md "Exit codes").

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/program.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod program;

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use program::{Portal, Running, by_shell, connlib, private_file, run, verdict};

/// An address where nobody listens, and nobody may without root.
const NOBODY: &str = "ws://127.0.0.1:1/";

#[test]
fn wrong_arguments_are_exit_2_with_a_message() {
    for line in [
        "",
        "nonsense",
        "demo --size nonsense",
        "demo --size 0",
        "demo --nonsense",
        "bench --against foo",
        "bench --against raw,foo",
        "bench --runs 0",
        "bench --seconds 0",
        "bench --only nothing",
        "why",
        "why 10.0.0.1:0",
        "why 10.0.0.1/sctp",
        "why 10.0.0.1/tcp",
        "client --api-url",
        "client",
        "client --api-url ws://127.0.0.1:1/ --internet maybe",
        "gateway --tun",
        "gateway --api-url ws://127.0.0.1:1/ --masquerade maybe",
        "relay",
        "relay --api-url ws://127.0.0.1:1/",
        "relay --public-ip4 nonsense --secret x",
        "relay --public-ip4 127.0.0.1 --port-range 9-1 --secret x",
        "relay --public-ip4 127.0.0.1 --listen-port 99999 --secret x",
        "relay --public-ip4 127.0.0.1 --ready-fd 77 --secret x",
        "relay --public-ip4 127.0.0.1 --drain soon --secret x",
        "relay --public-ip4 127.0.0.1 --max-allocations -1 --secret x",
        "portal",
        "portal token create",
        "portal token create --client alice --relay",
        "portal token create --client alice --expires soon",
        "portal token revoke nonsense",
        "portal apply /nonexistent.toml",
        "portal verify nonsense",
        "portal explain alice",
        "portal explain alice wiki --country Germany",
        "portal audit --since yesterday",
        "portal backup",
        "portal serve --listen nonsense",
        "portal serve --listen 0.0.0.0:0 --db :memory: --admin-socket /nonexistent/a",
    ] {
        let words: Vec<_> = line.split(' ').filter(|word| !word.is_empty()).collect();

        let (code, message) = verdict(&run(&words));
        assert_eq!(code, 2, "{line}: {message}");
        assert!(!message.is_empty(), "{line}");
    }
}

#[test]
fn what_is_not_in_this_version_is_exit_2_and_says_so() {
    for line in ["netcheck --json", "status --watch"] {
        let words: Vec<_> = line.split(' ').collect();

        let (code, message) = verdict(&run(&words));
        assert_eq!(code, 2, "{line}");
        assert!(message.contains("not in this version"), "{line}: {message}");
    }
}

#[test]
fn help_and_version_are_exit_0() {
    for line in [
        "--help",
        "--version",
        "demo --help",
        "bench --help",
        "portal token create --help",
    ] {
        let words: Vec<_> = line.split(' ').collect();

        let output = run(&words);
        assert!(output.status.success(), "{line}");
        assert!(!output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn a_wrong_url_is_exit_2() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    private_file(&token, b"abc");
    let token = token.to_str().unwrap();

    for url in ["nonsense", "ftp://portal.example/", "ws://", ""] {
        let arguments = [
            "--api-url",
            url,
            "--token-file",
            token,
            "--public-ip4",
            "127.0.0.1",
        ];
        let (code, message) = verdict(&run(&[&["relay"], &arguments[..]].concat()));

        assert_eq!(code, 2, "{url}: {message}");
    }
}

#[test]
fn a_wrong_configuration_file_is_exit_2_with_file_line_and_key() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    let path = config.to_str().unwrap();

    for (role, contents, expected) in [
        ("relay", "listen-port = 1\ntypo = 2\n", ":2: the key `typo`"),
        ("relay", "name = \n", ":1: this is no TOML"),
        ("relay", "\nlisten-port = \"x\"\n", ":2: `listen-port`"),
        ("relay", "token = \"hush\"\n", ":1: `token` is secret"),
        (
            "client",
            "metrics = \"127.0.0.1:9\"\n",
            ":1: `metrics` is not in this version",
        ),
    ] {
        fs::write(&config, contents).unwrap();

        let (code, message) = verdict(&run(&[role, "--config", path]));
        assert_eq!(code, 2, "{message}");
        assert!(
            message.contains(path) && message.contains(expected),
            "{message}"
        );
        assert!(!message.contains("hush"), "{message}");
    }
    fs::remove_file(&config).unwrap();
    let (code, message) = verdict(&run(&["relay", "--config", path]));
    assert_eq!(code, 2);
    assert!(message.contains(path), "{message}");
}

#[test]
fn a_wrong_variable_is_exit_2_with_its_name() {
    for (name, value) in [
        ("LISTEN_PORT", "many"),
        ("CONNLIB_PUBLIC_IP4", "::1"),
        ("CONNLIB_ALLOW_LOOPBACK_PEERS", "maybe"),
        ("RUST_LOG", "a=b=c"),
    ] {
        let arguments = ["relay", "--public-ip6", "::1", "--secret", "x"];
        let output = connlib(&arguments).env(name, value).output().unwrap();

        let (code, message) = verdict(&output);
        assert_eq!(code, 2, "{name}: {message}");
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn a_wrong_topology_is_exit_2_with_file_line_and_key_and_nothing_is_applied() {
    let directory = tempfile::tempdir().unwrap();
    let portal = Portal::start(directory.path());
    let file = directory.path().join("wrong.toml");
    let path = file.to_str().unwrap();
    let before = run(&["portal", "show", "--json", &portal.admin]).stdout;

    for contents in [
        "[[site]]\nname = \"new\"\ntypo = 1\n",
        "[[resource]]\nname = \"x\"\n\naddress = \"10.0.0.0/33\"\nsites = []\n",
        "[[site]\n",
    ] {
        fs::write(&file, contents).unwrap();

        let (code, message) = verdict(&run(&["portal", "apply", path, &portal.admin]));
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(&format!("{path}:")), "{message}");
    }
    assert_eq!(
        run(&["portal", "show", "--json", &portal.admin]).stdout,
        before
    );
}

#[test]
fn a_topology_that_the_demo_can_not_use_is_exit_2_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("other.toml");
    fs::write(&file, "[[site]]\nname = \"office\"\n").unwrap();
    let path = file.to_str().unwrap();

    for path in [path, "/nonexistent.toml"] {
        let (code, message) = verdict(&run(&["demo", "--json", "--topology", path]));

        assert_eq!(code, 2, "{message}");
        assert!(message.contains(path), "{message}");
    }
}

#[test]
fn wrong_certificates_are_exit_2_with_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let token = directory.path().join("token");
    private_file(&token, b"abc");
    let (empty, token) = (empty.to_str().unwrap(), token.to_str().unwrap());
    let serve = ["portal", "serve", "--db=:memory:", "--listen=127.0.0.1:0"];
    let admin = format!("--admin-socket={}", directory.path().join("a").display());
    let relay = [
        "relay",
        "--public-ip4=127.0.0.1",
        "--api-url",
        "wss://127.0.0.1:1/",
    ];

    for (arguments, expected) in [
        (vec!["--tls-cert", empty], "tls-key"),
        (vec!["--tls-key", empty], "tls-cert"),
        (vec!["--tls-cert", empty, "--tls-key", empty], empty),
        (
            vec!["--tls-cert", "/nonexistent", "--tls-key", empty],
            "/nonexistent",
        ),
    ] {
        let (code, message) = verdict(&run(&[&serve[..], &[&admin], &arguments].concat()));
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(expected), "{message}");
    }
    for ca in [empty, "/nonexistent"] {
        let arguments = ["--token-file", token, "--ca", ca];
        let (code, message) = verdict(&run(&[&relay[..], &arguments].concat()));
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(ca), "{message}");
    }
}

#[test]
fn a_token_file_that_is_missing_or_open_to_others_is_exit_3_and_told_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let open = directory.path().join("open");
    fs::write(&open, "hush").unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let empty = directory.path().join("empty");
    private_file(&empty, b"\n");

    for (path, expected) in [
        (Path::new("/nonexistent"), "create it"),
        (&open, "chmod 600"),
        (&empty, "is empty"),
    ] {
        let path = path.to_str().unwrap();
        for role in ["client", "gateway", "relay"] {
            let arguments = [role, "--api-url", "wss://127.0.0.1:1", "--token-file", path];
            let address: &[&str] = match role {
                "relay" => &["--public-ip4", "127.0.0.1"],
                _ => &["--id", "test"],
            };

            let (code, message) = verdict(&run(&[&arguments[..], address].concat()));
            assert_eq!(code, 3, "{message}");
            assert!(
                message.contains(path) && message.contains(expected),
                "{message}"
            );
            assert!(!message.contains("hush"), "{message}");
        }
    }
}

#[test]
fn a_client_that_can_not_start_takes_back_what_a_killed_one_has_left() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("resolv.conf");
    let original = "nameserver 192.0.2.1\n";
    let left = "# BEGIN connlib DNS configuration\nnameserver 100.100.111.1\n\
                # END connlib DNS configuration\n";
    fs::write(&file, left).unwrap();
    fs::write(
        directory.path().join("resolv.conf.before-connlib"),
        original,
    )
    .unwrap();

    let (code, message) = verdict(
        &connlib(&[
            "client",
            "--api-url=ws://127.0.0.1:1/",
            "--token-file=/nonexistent",
            "--resolv-conf=resolv.conf",
        ])
        .current_dir(directory.path())
        .output()
        .unwrap(),
    );

    assert_eq!(code, 3, "{message}");
    assert_eq!(fs::read_to_string(&file).unwrap(), original);
}

#[test]
fn no_token_at_all_is_exit_3() {
    for role in ["client", "gateway"] {
        let (code, message) = verdict(&run(&[role, "--api-url", NOBODY, "--id", "test"]));

        assert_eq!(code, 3, "{message}");
        assert!(message.contains("--token-file"), "{message}");
    }
}

#[test]
fn a_token_that_the_portal_does_not_know_any_more_is_exit_3() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let portal = Portal::start(directory);
    let wrong = directory.join("wrong");
    private_file(&wrong, b"not-a-token");
    let for_clients = portal.token(directory, &["--client", "alice"]);
    let expired = portal.token(directory, &["--relay", "--expires", "0s"]);
    let revoked = portal.token(directory, &["--relay"]);
    let shown = run(&["portal", "show", "--json", &portal.admin]).stdout;
    let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    let tokens = shown["tokens"].as_array().unwrap();
    let is_good = |token: &&serde_json::Value| token["kind"] == "relay" && token["usable"] == true;
    let id = tokens.iter().find(is_good).unwrap()["id"].as_str().unwrap();
    let done = run(&["portal", "token", "revoke", id, &portal.admin]);
    assert!(done.status.success(), "{}", verdict(&done).1);

    for file in [wrong, for_clients, expired, revoked] {
        let (code, message) = Running::start(directory, &mut relay(&portal.url, &file)).wait();

        assert_eq!(code, 3, "{message}");
        assert!(message.contains("token create"), "{message}");
        let token = fs::read_to_string(&file).unwrap();
        assert!(!message.contains(token.trim()), "{message}");
    }
}

#[test]
fn a_portal_that_comes_later_is_joined_then() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let portal = Portal::start(directory);
    let token = portal.token(directory, &["--relay"]);
    let (url, listen) = (portal.url.clone(), portal.url.clone());
    let listen = listen.trim_start_matches("ws://").trim_end_matches('/');
    portal.process.kill();

    let mut relay = Running::start(directory, &mut relay(&url, &token));
    relay.wait_for_line("portal is away");
    let _portal = Portal::start_empty(directory, listen);

    relay.wait_ready();
    assert!(relay.terminate().success());
}

#[test]
fn a_portal_that_is_away_for_longer_than_allowed_is_exit_4() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    private_file(&token, b"abc");
    // A gateway of a user without rights ends with 5 before it asks the portal.
    let mut command = relay(NOBODY, &token);
    command.env("CONNLIB_MAX_PARTITION_TIME", "100ms");

    let (code, message) = verdict(&command.output().unwrap());
    assert_eq!(code, 4, "{message}");
}

#[test]
fn a_port_that_is_taken_is_exit_5_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = udp.local_addr().unwrap().port().to_string();
    let arguments = [
        "relay",
        "--secret",
        "x",
        "--public-ip4",
        "127.0.0.1",
        "--listen-port",
    ];

    let (code, message) = verdict(&run(&[&arguments[..], &[&port]].concat()));
    assert_eq!(code, 5, "{message}");
    assert!(message.contains(&port), "{message}");

    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let admin = format!("--admin-socket={}", directory.path().join("a").display());
    let serve = [
        "portal",
        "serve",
        "--db=:memory:",
        &admin,
        "--listen",
        &address,
    ];

    let (code, message) = verdict(&run(&serve));
    assert_eq!(code, 5, "{message}");
    assert!(message.contains(&address), "{message}");
}

#[test]
fn a_killed_role_leaves_nothing_that_stops_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let socket = format!("--socket={}", directory.join("relay.sock").display());
    let port = free_udp_port();
    let arguments = [
        "relay",
        "--secret=x",
        "--public-ip4=127.0.0.1",
        "--listen-port",
        &port,
        &socket,
    ];
    let start = || {
        let mut relay = Running::start(directory, &mut connlib(&arguments));
        relay.wait_ready();
        relay
    };

    start().kill();
    let relay = start();
    let status = run(&["status", "--json", &socket]);
    assert!(status.status.success(), "{}", verdict(&status).1);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["role"], "relay");
    assert!(relay.terminate().success());

    let portal = Portal::start(directory);
    portal.process.kill();
    let portal = Portal::start(directory);
    assert!(portal.process.terminate().success());
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_full_disk_costs_a_portal_the_change_alone() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (disk, backup) = (directory.join("disk"), directory.join("backup.sqlite"));
    fs::create_dir(&disk).unwrap();
    let admin = format!("--admin-socket={}", directory.join("admin.sock").display());
    let disk = disk.display();
    // Nobody else sees this disk, and it is gone with the process.
    let mount = format!("mount -n -t tmpfs -o size=1m none {disk}");
    let serve = format!("portal serve --listen=127.0.0.1:0 {admin} --db={disk}/p.sqlite");
    let line = format!("unshare -m sh -ec '{mount}; exec \"$0\" \"$@\"' {{}} {serve}");
    let mut portal = Running::start(directory, &mut by_shell(&line));
    portal.wait_ready();
    let listening = portal.wait_for_line("listen=");
    let url = format!("ws://{}/", listening.split("listen=").nth(1).unwrap());
    let token = run(&["portal", "token", "create", "--relay", &admin]);
    let token_file = directory.join("relay.token");
    private_file(&token_file, &token.stdout);
    let mut relay = Running::start(directory, &mut relay(&url, &token_file));
    relay.wait_ready();
    let apply = |sites: usize| {
        let topology = directory.join("topology.toml");
        let site = |number| format!("[[site]]\nname = \"site {number}\"\n");
        fs::write(&topology, (0..sites).map(site).collect::<String>()).unwrap();
        verdict(&run(&[
            "portal",
            "apply",
            topology.to_str().unwrap(),
            &admin,
        ]))
    };
    let sites = || {
        let shown = run(&["portal", "show", "--json", &admin]);
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert_eq!(shown["relays"].as_array().unwrap().len(), 1, "{shown}");
        shown["sites"].as_array().unwrap().len()
    };

    assert_eq!(apply(3), (0, String::new()));
    let (code, message) = apply(20_000);
    assert_eq!(code, 1, "{message}");
    for part in ["p.sqlite", "is full", "check that"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(sites(), 3);
    assert_eq!(apply(4).0, 0);
    assert_eq!(sites(), 4);
    let backed_up = run(&["portal", "backup", backup.to_str().unwrap(), &admin]);
    assert!(backed_up.status.success(), "{}", verdict(&backed_up).1);
    assert!(portal.terminate().success());
    let shown = run(&["portal", "show", "--json", "--db", backup.to_str().unwrap()]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["sites"].as_array().unwrap().len(), 4, "{shown}");
    assert!(relay.terminate().success());
}

#[test]
fn a_role_that_does_not_run_is_exit_1_and_told_by_name() {
    let (code, message) = verdict(&run(&["status", "--socket", "/nonexistent.sock"]));

    assert_eq!(code, 1, "{message}");
    assert!(message.contains("/nonexistent.sock"), "{message}");
}

#[test]
fn a_token_is_in_no_environment_and_no_log_and_not_printed() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let token = "hush-hush-token";
    let port = free_udp_port();
    let socket = format!("--socket={}", directory.join("relay.sock").display());
    let arguments = [
        "relay",
        "--public-ip4=127.0.0.1",
        "--listen-port",
        &port,
        "--api-url",
        NOBODY,
        &socket,
    ];
    let with_token = |arguments: &[&str]| {
        let mut command = connlib(arguments);
        command
            .env("FIREZONE_TOKEN", token)
            .env("RUST_LOG", "trace");
        command
    };

    let mut running = Running::start(directory, &mut with_token(&arguments));
    running.wait_for_line("portal is away");

    let proc = format!("/proc/{}", running.pid());
    for file in ["environ", "cmdline"] {
        let contents = fs::read(format!("{proc}/{file}")).unwrap();
        let contents = String::from_utf8_lossy(&contents).into_owned();
        assert!(!contents.contains(token), "{file}: {contents}");
        assert!(
            contents.contains("FIREZONE_TOKEN=***") || file == "cmdline",
            "{contents}"
        );
    }
    let log = running.log_so_far().join("\n");
    assert!(!log.contains(token), "{log}");

    let printed = with_token(&arguments)
        .arg("--print-config")
        .output()
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(
        printed.contains("# token = ***  # from FIREZONE_TOKEN"),
        "{printed}"
    );
    assert!(!printed.contains(token), "{printed}");
}

#[test]
fn the_configuration_is_printed_with_its_origins() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    fs::write(&config, "tun = \"tun-9\"\n").unwrap();
    let config = config.to_str().unwrap();

    let mut command = connlib(&[
        "client",
        "--name",
        "n",
        "--config",
        config,
        "--print-config",
    ]);
    let output = command.env("FIREZONE_API_URL", "wss://p").output().unwrap();

    let printed = String::from_utf8(output.stdout).unwrap();
    for line in [
        "api-url = \"wss://p\"  # from FIREZONE_API_URL",
        "name = \"n\"  # from --name",
        &format!("tun = \"tun-9\"  # from {config}:1"),
        "# id is not given",
    ] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
}

/// A relay that joins the portal at `url`, where nobody disturbs it.
fn relay(url: &str, token: &Path) -> std::process::Command {
    let directory = token.parent().unwrap();
    let socket = directory.join(format!("relay-{}.sock", free_udp_port()));
    let mut command = connlib(&[
        "relay",
        "--public-ip4=127.0.0.1",
        "--listen-port",
        &free_udp_port(),
        "--api-url",
        url,
    ]);
    command.arg("--token-file").arg(token);
    command.arg("--socket").arg(socket);

    command
}

fn free_udp_port() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();

    socket.local_addr().unwrap().port().to_string()
}
