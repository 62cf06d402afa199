//! Flows through a gateway that masquerades, as the kernel's own records of them show.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use connlib_os::namespace::run_in;

use crate::site::{HOST_V4, Site, plan};
use crate::tools::{PATIENCE, command, stdout, wait_for};
use crate::world::pause;

/// Longer than the tunnel's keys live, which are agreed anew for what is sent then (WireGuard §6.1: 180 s).
const IDLE: Duration = Duration::from_secs(190);

/// What the gateway's kernel remembers of flows to a port.
fn tracked(site: &Site, carrier: &str, port: u16) -> Vec<String> {
    let gateway = site.world.network.namespace("gateway");
    let port = port.to_string();
    let said =
        stdout(command(gateway, "conntrack").args(["-L", "-p", carrier, "--orig-port-dst", &port]));

    said.lines().map(str::to_owned).collect()
}

fn socket(site: &Site) -> UdpSocket {
    let socket = run_in(site.client(), || UdpSocket::bind(("0.0.0.0", 0)))
        .unwrap()
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();

    socket
}

/// Whom the host takes a socket for.
fn seen_as(socket: &UdpSocket, to: SocketAddr) -> String {
    let ask = || {
        socket.send_to(b"who am I?", to).unwrap();
        let mut text = [0; 64];
        let (len, from) = socket.recv_from(&mut text).ok()?;
        assert_eq!(from, to);
        Some(String::from_utf8_lossy(&text[..len]).trim().to_owned())
    };

    wait_for(PATIENCE, ask).expect("no answer")
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn flows_are_the_gateways_own_to_the_host_and_stay_what_they_are() {
    let Some(site) = Site::new(&["conntrack"]) else {
        return;
    };
    let client = site.world.status("client")["addresses"][0]
        .as_str()
        .unwrap()
        .to_owned();
    let name = site.addresses("four.corp.test", "ahostsv4")[0];
    for to in [HOST_V4[0].parse().unwrap(), name] {
        let to = SocketAddr::new(to, 9001);
        let socket = socket(&site);
        let first = seen_as(&socket, to);
        assert!(first.starts_with("10.20.0.1 "), "{first}");
        for _ in 0..20 {
            assert_eq!(seen_as(&socket, to), first);
        }
        let port = first.split(' ').next_back().unwrap();
        let flows = tracked(&site, "udp", 9001);
        // Translated where the client is known by its address, and nowhere else.
        let is_it = |flow: &&String| {
            flow.contains(&format!("src={client} dst=10.20.0.10"))
                && flow.contains(&format!(
                    "src=10.20.0.10 dst=10.20.0.1 sport=9001 dport={port}"
                ))
        };
        assert_eq!(flows.iter().filter(is_it).count(), 1, "{flows:#?}");
    }

    let connect = || TcpStream::connect((HOST_V4[0], 80)).unwrap();
    let mut stream = run_in(site.client(), connect).unwrap();
    // The last packet of the handshake may still be on its way.
    let is_established = || {
        let flows = tracked(&site, "tcp", 80);
        flows
            .iter()
            .any(|flow| flow.contains(" ESTABLISHED "))
            .then_some(())
    };
    assert!(
        wait_for(PATIENCE, is_established).is_some(),
        "{:#?}",
        tracked(&site, "tcp", 80)
    );
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("10.20.0.1 "), "{answer}");
    site.assert_calm();
}

/// A socket has one port to everybody behind a name, which programs that look for their own address by STUN count on.
#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_socket_has_one_port_at_two_ports_and_at_two_hosts_of_a_name() {
    let Some(site) = Site::new(&[]) else {
        return;
    };
    // In order they stand for one host and the other.
    let mut proxies = site.addresses("two.corp.test", "ahostsv4");
    proxies.sort_unstable();
    for _ in 0..5 {
        let socket = socket(&site);
        let expected = format!("10.20.0.1 {}", socket.local_addr().unwrap().port());
        for ip in &proxies[..2] {
            for port in [9001, 9002] {
                let seen = seen_as(&socket, SocketAddr::new(*ip, port));
                assert_eq!(seen, expected, "{ip}:{port}");
            }
        }
    }
    site.assert_calm();
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_name_is_reached_through_another_gateway_when_the_one_in_use_dies() {
    const GATEWAYS: [&str; 2] = ["gateway-1", "gateway-2"];

    let Some(mut site) = Site::planned(plan(), &["curl"], &GATEWAYS, true) else {
        return;
    };
    let curl = |site: &Site, patience| {
        site.attempt(&[
            "curl",
            "-sS",
            "--max-time",
            patience,
            "http://both.corp.test/",
        ])
    };
    let in_use = |site: &Site| {
        let serves = |gateway: &&str| {
            let status = site.world.status(gateway);
            status["resources"]
                .as_array()
                .is_some_and(|resources| !resources.is_empty())
        };
        GATEWAYS.iter().copied().find(serves).unwrap()
    };
    let (is_there, said) = curl(&site, "10");
    assert!(is_there, "{said}");
    let first = in_use(&site);
    site.world.kill(first);
    let killed_at = site.world.clock.now();
    let answered = wait_for(PATIENCE, || curl(&site, "1").0.then_some(()));
    assert!(answered.is_some(), "{}", curl(&site, "1").1);
    println!(
        "a name is reached by another gateway: {:?} after the kill",
        site.world.clock.now() - killed_at
    );
    let other = GATEWAYS
        .into_iter()
        .find(|gateway| *gateway != first)
        .unwrap();
    let status = site.world.status(other);
    assert!(
        !status["resources"].as_array().unwrap().is_empty(),
        "{status}"
    );
    site.assert_calm();
}

/// A service that sends back what it is sent, on whichever connection.
fn echo(listener: TcpListener) {
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
    }
}

fn is_echoed(stream: &mut TcpStream) {
    let mut said = [0; 5];
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello");
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_service_that_was_idle_for_longer_than_keys_live_goes_on() {
    let Some(site) = Site::new(&[]) else {
        return;
    };
    let listener = run_in(site.host(), || TcpListener::bind(("0.0.0.0", 5000)));
    let listener = listener.unwrap().unwrap();
    std::thread::spawn(move || echo(listener));
    let name = site.addresses("four.corp.test", "ahostsv4")[0];
    let connect = |ip: IpAddr| {
        let connect = || TcpStream::connect((ip, 5000)).unwrap();
        let mut stream = run_in(site.client(), connect).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        is_echoed(&mut stream);
        stream
    };
    let mut streams = [HOST_V4[0].parse().unwrap(), name].map(connect);

    pause(IDLE);
    for stream in &mut streams {
        is_echoed(stream);
    }
    let status = site.world.status("client");
    let age = status["peers"][0]["handshake_age_ms"].as_u64().unwrap();
    assert!(u128::from(age) < IDLE.as_millis() / 2, "{status}");
    site.assert_calm();
}
