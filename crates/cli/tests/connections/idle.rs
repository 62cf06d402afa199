//! What a thousand connections cost while nobody uses them.

use std::fs;
use std::time::Duration;

use crate::crowd::{Crowd, share};
use crate::figures::Table;
use crate::vitals::{Memory, Thread, busy};
use crate::world::{World, pause};

const CLIENTS: usize = 1_000;

/// How long they may take to connect. A machine that has nothing else to do needs a small part of it.
const PATIENCE: Duration = Duration::from_secs(180);

/// What connecting has left behind is over by then.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// How long the gateway is watched.
const WATCHED_FOR: Duration = Duration::from_secs(25);

/// Of the gateway, twice the goal.
const MAX_RESIDENT: u64 = 120 * 1024;

pub(crate) fn thousand_idle_connections(table: &mut Table) {
    let mut world = World::new(&["relay"], &["gateway"]);
    let token = fs::read_to_string(world.file("client.token")).unwrap();
    let began_at = world.clock.now();
    let crowd = Crowd::start(
        world.network.namespace("client"),
        world.network.net("client"),
        world.portal(),
        token.trim().to_owned(),
        CLIENTS,
    );
    let all_came = crowd.wait_connected(CLIENTS, PATIENCE);
    println!(
        "{} of {CLIENTS} have connected within {:.1} s",
        crowd.connected(),
        (world.clock.now() - began_at).as_secs_f64()
    );
    assert!(all_came);
    pause(SETTLED_AFTER);

    let gateway = world.pid("gateway");
    let (worked, thread, from) = (
        busy(gateway),
        Thread::of(gateway, "gateway data"),
        world.clock.now(),
    );
    pause(WATCHED_FOR);
    let until = world.clock.now();
    let worked = share(busy(gateway) - worked, from, until);
    let woken = Thread::of(gateway, "gateway data").since(thread).wake_ups;
    let memory = Memory::of(gateway);
    let peers = world.status("gateway")["peers"].as_array().unwrap().len();
    assert!(peers >= CLIENTS, "{peers}");

    table.add(
        "1,000 idle connections: resident memory",
        "≤ 60 MB",
        format_args!("{:.1} MB", memory.resident as f64 / 1024.0),
    );
    table.add(
        "1,000 idle connections: share of a core",
        "≤ 0.5 %",
        format_args!("{:.2} %", worked * 100.0),
    );
    table.add(
        "1,000 idle connections: wake-ups of the data plane",
        "no periodic tick",
        format_args!("{:.1} a second", woken as f64 / WATCHED_FOR.as_secs_f64()),
    );
    assert!(memory.resident <= MAX_RESIDENT, "{} KiB", memory.resident);
    drop(crowd);
    world.assert_calm();
}
