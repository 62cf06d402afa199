//! The resolver settings of the client's machine: by file, by systemd-resolved, and left alone. All in namespaces or files of the
//! test's own.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use connlib_os::clock::Clock;

use crate::tools::{PATIENCE, Service, command_with, find, output, stdout, wait_for};
use crate::world::{Plan, World};

/// How soon a change of the system's resolvers is noticed at the latest.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

const INTERFACE: &str = "tun-firezone";

#[test]
#[ignore = "needs root, /dev/net/tun, dig, knotd, unbound, dnsmasq; .ci/run runs it"]
fn a_file_is_restored_byte_for_byte_however_the_client_ends() {
    let Some(mut world) = World::new(&[], Plan::default()) else {
        return;
    };
    let file = world.resolv_conf();
    let read = || fs::read_to_string(&file).unwrap();
    let original = world.original();
    let first = world.sentinels();
    let ours = read();
    assert!(ours.contains("options timeout:3\n"), "{ours}");
    assert_eq!(read_backup(&file), original);
    world.stop("client");
    assert_eq!(read(), original);

    // A crash, and the next start.
    world.start("client");
    assert_eq!(world.sentinels(), first);
    world.kill("client");
    assert_eq!(read(), ours);
    world.start("client");
    assert_eq!(world.sentinels(), first);
    assert_eq!(read_backup(&file), original, "never what we have written");
    world.stop("client");
    assert_eq!(read(), original);

    // A crash, after which somebody has written the file anew.
    world.start("client");
    world.kill("client");
    let by_others = format!("nameserver {}\n", world.resolver("other-resolver"));
    fs::write(&file, &by_others).unwrap();
    world.start("client");
    assert_who(&world, world.sentinels()[0], "dnsmasq");
    world.stop("client");
    assert_eq!(read(), by_others);
}

#[test]
#[ignore = "needs root, /dev/net/tun, dig, knotd, unbound, dnsmasq; .ci/run runs it"]
fn a_change_of_the_systems_resolvers_is_noticed_and_kept() {
    let Some(mut world) = World::new(&[], Plan::default()) else {
        return;
    };
    let file = world.resolv_conf();
    let mut sentinels = world.sentinels();
    assert_who(&world, sentinels[0], "unbound");
    let mut last = String::new();
    for (round, (place, whose)) in [
        ("other-resolver", "dnsmasq"),
        ("resolver", "unbound"),
        ("other-resolver", "dnsmasq"),
    ]
    .into_iter()
    .enumerate()
    {
        last = format!("# {round}\nnameserver {}\n", world.resolver(place));
        let clock = Clock::new();
        let began_at = clock.now();
        if round == 1 {
            // As DHCP clients do it.
            let new = world.file("etc/resolv.conf.new");
            fs::write(&new, &last).unwrap();
            fs::rename(new, &file).unwrap();
        } else {
            fs::write(&file, &last).unwrap();
        }
        let others = world.other_sentinels(&sentinels);
        let took = clock.now() - began_at;
        println!("other resolvers were noticed after {took:?}");
        assert!(took < NOTICED_WITHIN, "{took:?}");
        assert!(
            others.iter().all(|it| !sentinels.contains(it)),
            "{others:?}"
        );
        assert_who(&world, others[0], whose);
        sentinels = others;
    }
    world.stop("client");
    assert_eq!(fs::read_to_string(&file).unwrap(), last);

    // The same server, set by somebody who doesn't want us: it is written over, and comes back in the end.
    world.start("client");
    world.sentinels();
    let without_us = format!("# once more\n{last}");
    fs::write(&file, &without_us).unwrap();
    world.sentinels();
    assert_eq!(read_backup(&file), without_us);
    world.stop("client");
    assert_eq!(fs::read_to_string(&file).unwrap(), without_us);

    // No server at all: there is nothing to stand for, and nothing to write over.
    world.start("client");
    world.sentinels();
    let without_servers = "options edns0\n";
    fs::write(&file, without_servers).unwrap();
    let is_left_alone = || {
        let status = world.status("client");
        let servers = status["name_servers"].as_array().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        (servers.is_empty() && text == without_servers).then_some(())
    };
    let left_alone = wait_for(PATIENCE, is_left_alone);
    assert!(left_alone.is_some(), "{}", world.status("client"));
    world.stop("client");
    assert_eq!(fs::read_to_string(&file).unwrap(), without_servers);
}

#[test]
#[ignore = "needs root, /dev/net/tun, dig, knotd, unbound, dnsmasq; .ci/run runs it"]
fn the_machines_own_file_may_be_a_mount() {
    let plan = Plan {
        dns: Some("resolv-conf"),
        ..Plan::default()
    };
    let Some(mut world) = World::without_client(&[], plan) else {
        return;
    };
    let outside = world.file("outside");
    let original = world.original();
    fs::write(&outside, &original).unwrap();
    let etc = world.file("etc");
    let mounts = [
        (etc.as_path(), "/etc"),
        (outside.as_path(), "/etc/resolv.conf"),
    ];
    let _holder = hold(&mut world, &mounts);
    let ca = world.client.arguments.last().unwrap().clone();
    for how in ["resolv-conf", "auto"] {
        world.client.arguments = vec![format!("--dns={how}"), ca.clone()];
        world.start("client");
        let ours = wait_for(PATIENCE, || {
            let text = fs::read_to_string(&outside).unwrap();
            text.starts_with("# BEGIN connlib").then_some(text)
        });
        assert!(ours.is_some(), "{how}");
        let said = stdout(
            world
                .beside_client(&find("getent").unwrap())
                .args(["ahosts", "wiki.corp.test"]),
        );
        assert!(said.contains("100.96.0."), "{said}");
        world.kill("client");
        assert_eq!(fs::read_to_string(&outside).unwrap(), ours.unwrap());
        world.start("client");
        world.stop("client");
        assert_eq!(fs::read_to_string(&outside).unwrap(), original, "{how}");
    }
    // Beside what is mounted upon.
    assert_eq!(read_backup(&world.resolv_conf()), original);
    world.assert_calm();
}

#[test]
#[ignore = "needs root, /dev/net/tun, dig, knotd, unbound, dnsmasq; .ci/run runs it"]
fn what_belongs_to_others_is_left_alone() {
    let plan = Plan {
        dns: Some("auto"),
        ..Plan::default()
    };
    let Some(mut world) = World::without_client(&[], plan) else {
        return;
    };
    let file = world.resolv_conf();
    let elsewhere = world.file("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    for how in ["auto", "off"] {
        world.client.arguments[0] = format!("--dns={how}");
        world.start("client");
        // It answers all the same whoever asks it.
        let said = world.dig_at("100.100.111.1".parse().unwrap(), &["wiki.corp.test", "A"]);
        assert_eq!(said.answers().len(), 4, "{how}: {said}");
        assert_who(&world, "100.100.111.1".parse().unwrap(), "unbound");
        assert_eq!(fs::read_to_string(&file).unwrap(), world.original());
        world.stop("client");
        assert_eq!(fs::read_link(&file).unwrap(), elsewhere);
    }
    world.assert_calm();
}

#[test]
#[ignore = "needs root, /dev/net/tun, dig, curl, knotd, unbound, dnsmasq, systemd-resolved, dbus-daemon; .ci/run runs it"]
fn resolved_asks_the_client_and_nobody_once_it_has_ended() {
    let programs = ["systemd-resolved", "resolvectl", "dbus-daemon", "curl"];
    let Some(mut world) = World::without_client(&programs, Plan::default()) else {
        return;
    };
    let _services = start_resolved(&mut world);
    let ca = world.client.arguments.last().unwrap().clone();
    let resolvectl = |world: &World, words: &[&str]| {
        output(
            world
                .beside_client(&find("resolvectl").unwrap())
                .args(words),
        )
    };
    let setting = |world: &World, verb: &str| {
        let listed = resolvectl(world, &[verb, INTERFACE]);
        let listed = String::from_utf8(listed.stdout).unwrap();
        let value = listed.split_once("):").map(|(_, value)| value.trim());
        value.map(str::to_owned)
    };
    for how in ["resolved", "auto"] {
        world.client.arguments = vec![format!("--dns={how}"), ca.clone()];
        world.start("client");
        let is_set = || setting(&world, "dns").filter(|servers| !servers.is_empty());
        let sentinel = wait_for(PATIENCE, is_set).expect("nothing is set");
        assert!(sentinel.starts_with("100.100.111."), "{how}: {sentinel}");
        assert_eq!(setting(&world, "domain").as_deref(), Some("~."), "{how}");
        assert_eq!(setting(&world, "default-route").as_deref(), Some("yes"));
        for (name, address) in [
            ("wiki.corp.test", "100.96.0."),
            ("www.example.test", "192.0.2.80"),
        ] {
            let said = resolvectl(&world, &["query", name]);
            let text = String::from_utf8(said.stdout).unwrap();
            let by_us = format!("link: {INTERFACE}");
            assert!(
                text.contains(address) && text.contains(&by_us),
                "{how}: {text}"
            );
        }
        let curl = find("curl").unwrap();
        let body =
            stdout(
                world
                    .beside_client(&curl)
                    .args(["-q", "--silent", "http://only.exact.test/"]),
            );
        assert_eq!(body, "10.20.0.10\n");

        // The system's other resolvers change, and with them what stands for them.
        let other = world.resolver("other-resolver").to_string();
        let uplink = world.uplink();
        let clock = Clock::new();
        let began_at = clock.now();
        assert!(
            resolvectl(&world, &["dns", &uplink, &other])
                .status
                .success()
        );
        let changed = || setting(&world, "dns").filter(|it| *it != sentinel);
        assert!(wait_for(PATIENCE, changed).is_some());
        let took = clock.now() - began_at;
        println!("other resolvers of systemd-resolved were noticed after {took:?}");
        assert!(took < NOTICED_WITHIN, "{took:?}");
        assert!(resolvectl(&world, &["revert", &uplink]).status.success());
        assert!(
            resolvectl(&world, &["query", "wiki.corp.test"])
                .status
                .success()
        );

        if how == "auto" {
            // Its settings go with its link.
            world.kill("client");
        } else {
            world.stop("client");
        }
        assert_eq!(setting(&world, "dns"), None);
        let said = resolvectl(&world, &["query", "www.example.test"]);
        assert!(said.status.success());
        let said = resolvectl(&world, &["query", "wiki.corp.test"]);
        assert!(!said.status.success(), "nobody knows it any more");
    }
    world.assert_calm();
}

/// Asks a sentinel whose server it stands for.
fn assert_who(world: &World, sentinel: IpAddr, whose: &str) {
    let said = world.dig_at(sentinel, &["who.example.test", "TXT"]);
    said.assert_data(&[&format!("\"{whose}\"")]);
}

fn read_backup(file: &Path) -> String {
    let name = format!("{}.before-connlib", file.display());

    fs::read_to_string(name).unwrap()
}

/// A process that has these mounts, for the client and the programs beside it.
fn hold(world: &mut World, mounts: &[(&Path, &str)]) -> Service {
    let sleep = find("sleep").unwrap();
    let mut command = command_with(world.network.namespace("client"), mounts, &sleep);
    let holder = Service::start(command.arg("600"), world.file("holder.log"));
    let is_there = || {
        let name = fs::read_to_string(format!("/proc/{}/comm", holder.pid())).unwrap();
        (name == "sleep\n").then_some(())
    };
    assert!(wait_for(PATIENCE, is_there).is_some(), "{}", holder.log());
    world.client.mounts_of = Some(holder.pid());

    holder
}

/// A system bus and systemd-resolved on the client's machine, with `/run` and `/etc` of their own.
fn start_resolved(world: &mut World) -> [Service; 3] {
    let (etc, run) = (world.file("etc"), world.file("run"));
    for directory in ["dbus", "systemd/resolve", "systemd/resolved.conf.d"] {
        fs::create_dir_all(run.join(directory)).unwrap();
    }
    let settings = format!(
        "[Resolve]\nDNS=\nDNS={}\nFallbackDNS=\nDomains=\nDNSSEC=no\nDNSOverTLS=no\nMulticastDNS=no\nLLMNR=no\n",
        world.resolver("resolver"),
    );
    fs::write(run.join("systemd/resolved.conf.d/zz.conf"), settings).unwrap();
    fs::remove_file(etc.join("resolv.conf")).unwrap();
    symlink(
        "/run/systemd/resolve/stub-resolv.conf",
        etc.join("resolv.conf"),
    )
    .unwrap();
    prepare_resolved(&etc);
    let mounts = [(etc.as_path(), "/etc"), (run.as_path(), "/run")];
    let holder = hold(world, &mounts);
    stdout(
        world
            .beside_client(&find("chown").unwrap())
            .args(["systemd-resolve:systemd-resolve", "/run/systemd/resolve"]),
    );

    let bus = Service::start(
        world.beside_client(&find("dbus-daemon").unwrap()).args([
            "--system",
            "--nofork",
            "--nopidfile",
        ]),
        world.file("bus.log"),
    );
    let has_bus = || run.join("dbus/system_bus_socket").exists().then_some(());
    assert!(wait_for(PATIENCE, has_bus).is_some(), "{}", bus.log());
    let resolved = Service::start(
        &mut world.beside_client(&find("systemd-resolved").unwrap()),
        world.file("resolved.log"),
    );
    let answers = || {
        let mut asked = world.beside_client(&find("resolvectl").unwrap());
        let asked = asked.arg("dns").stdout(Stdio::null()).stderr(Stdio::null());
        asked.status().unwrap().success().then_some(())
    };
    assert!(wait_for(PATIENCE, answers).is_some(), "{}", resolved.log());

    [resolved, bus, holder]
}

/// Lets systemd-resolved run that was unpacked but not installed: its user, and its right to its name on the bus.
fn prepare_resolved(etc: &Path) {
    const USER: &str = "systemd-resolve:";

    for (file, line) in [
        ("passwd", "x:64998:64998::/:/usr/sbin/nologin"),
        ("group", "x:64998:"),
    ] {
        let file = etc.join(file);
        let mut text = fs::read_to_string(&file).unwrap();
        if !text.lines().any(|line| line.starts_with(USER)) {
            text.push_str(&format!("{USER}{line}\n"));
            fs::write(file, text).unwrap();
        }
    }
    let policy = "org.freedesktop.resolve1.conf";
    let program = find("systemd-resolved").unwrap();
    let unpacked = program
        .ancestors()
        .map(|place| place.join("usr/share/dbus-1/system.d").join(policy))
        .find(|file| file.exists());
    let directory = etc.join("dbus-1/system.d");
    fs::create_dir_all(&directory).unwrap();
    fs::copy(unpacked.unwrap(), directory.join(policy)).unwrap();
}
