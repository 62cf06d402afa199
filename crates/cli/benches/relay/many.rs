//! Ten thousand allocations: memory with them and after them.

use std::net::SocketAddr;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::poll::Poller;
use connlib_os::process;

use crate::client::{Client, Desk, Refused};
use crate::network::{self, Network, STRANGERS};
use crate::server::{Kind, Server};
use crate::stats::Row;

const ALLOCATIONS: usize = 10_000;

/// Allocations of each user; a user may have 1,024.
const PER_USER: usize = 1_000;

/// As much as a relay with that many may have in RAM.
const GOAL_MB: f64 = 64.0;

/// Nothing that is waited for takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn rows(network: &Network) -> Vec<Row> {
    let limit = process::raise_descriptor_limit().unwrap();
    println!("descriptors that this process and the relay may have: {limit}");
    let mut rows = few_descriptors(network);

    let server = Server::start(Kind::Ours, network);
    let clock = Clock::new();
    let (resident, anonymous) = (server.resident_mb(), server.anonymous_mb());
    let descriptors = server.descriptors();
    let began = clock.now();
    let (mut clients, refused) = allocate(network, ALLOCATIONS);
    let took = clock.now() - began;
    if let Some(Refused(code)) = refused {
        println!("allocation {} was refused: {code}", clients.len());
    }
    println!(
        "{} allocations: resident {resident:.1} → {:.1} MB, of it anonymous {anonymous:.1} → {:.1} MB",
        clients.len(),
        server.resident_mb(),
        server.anonymous_mb(),
    );
    rows.extend([
        Row::new(
            format!("{ALLOCATIONS} allocations: granted"),
            clients.len().to_string(),
            "all",
        ),
        Row::new(
            "resident memory before / with them".into(),
            format!("{resident:.1} / {:.1} MB", server.resident_mb()),
            "64 MB with them",
        ),
        Row::new(
            "made one after another, two round trips each, in".into(),
            format!("{:.1} s", took.as_secs_f64()),
            "–",
        ),
    ]);

    let mut desk = Desk::new();
    let began = clock.now();
    let ended = (clients.iter_mut())
        .map(|client| client.refresh(&mut desk, Duration::ZERO))
        .filter(Result::is_ok)
        .count();
    let until = clock.now() + PATIENCE;
    while server.descriptors() > descriptors && clock.now() < until {
        pause(Duration::from_millis(20));
    }
    println!(
        "ended in {:.1} s: resident {:.1} MB, anonymous {:.1} MB",
        (clock.now() - began).as_secs_f64(),
        server.resident_mb(),
        server.anonymous_mb(),
    );
    // What is free goes back to the system when nobody has needed it for a while.
    while server.resident_mb() > GOAL_MB && clock.now() < until {
        pause(Duration::from_millis(100));
    }
    rows.extend([
        Row::new(
            "resident memory up to a minute later".into(),
            format!("{:.1} MB", server.resident_mb()),
            "64 MB",
        ),
        Row::new(
            "given back by LIFETIME 0: said to have ended".into(),
            ended.to_string(),
            "all",
        ),
        Row::new(
            "ports that are open afterwards".into(),
            server.descriptors().saturating_sub(descriptors).to_string(),
            "none",
        ),
    ]);

    rows
}

/// How far it gets with what a shell allows it by default, of which a process may allow itself more.
fn few_descriptors(network: &Network) -> Vec<Row> {
    let server = Server::start(Kind::OursWithFewDescriptors, network);
    let wanted = 2_000;
    let (clients, refused) = allocate(network, wanted);
    let seen = match refused {
        Some(Refused(code)) => format!("{}, then {code}", clients.len()),
        None => clients.len().to_string(),
    };
    drop(server);

    vec![Row::new(
        format!("{wanted} allocations where the soft limit is 1024 descriptors"),
        seen,
        "–",
    )]
}

/// Makes allocations until there are so many, or one is refused.
fn allocate(network: &Network, count: usize) -> (Vec<Client>, Option<Refused>) {
    let mut desk = Desk::new();
    let mut clients = Vec::with_capacity(count);
    for number in 0..count {
        let (port, address) = (
            number / usize::from(STRANGERS),
            number % usize::from(STRANGERS),
        );
        let ip = network::stranger(u8::try_from(address).unwrap());
        let at = SocketAddr::new(ip.into(), 20_000 + u16::try_from(port).unwrap());
        let user = format!("user{}", number / PER_USER);
        let mut client = Client::bind(&network.clients, at, &user);
        if let Err(refused) = client.allocate(&mut desk) {
            return (clients, Some(refused));
        }
        clients.push(client);
    }

    (clients, None)
}

fn pause(time: Duration) {
    let mut poller = Poller::new().unwrap();
    poller.wait(Some(time), &mut Vec::new()).unwrap();
}
