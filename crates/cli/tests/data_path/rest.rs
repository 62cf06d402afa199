//! What is left to do, and to keep, when there is no traffic.

use std::env;
use std::time::Duration;

use crate::traffic::{Streams, rest};
use crate::vitals::{Memory, Thread, busy};
use crate::{Stage, at_resource, millis};

/// How long the demo's own traffic is over before something counts: timers that it has set have run out by then.
const SETTLING: Duration = Duration::from_secs(25);

/// How long it is looked at.
const IDLE: Duration = Duration::from_secs(20);

/// The share of a core that an idle process may use (issue 3, "Figures"), in a release build.
const SHARE: f64 = 0.001;

/// What a build without optimisation takes of that: 3 to 5 on machines that were seen.
const DEBUG: f64 = 8.0;

/// How often the data thread may be woken per second. ICE checks four pairs (two IP versions, direct and by relay) each
/// 1.5 s from either end, and each check is sent, answered, and told to have left; all else (bindings, refreshes,
/// keep-alives, trimming) has intervals of 5 s and more.
const WAKE_UPS: f64 = 4.0 * 2.0 * 3.0 / 1.5 + 1.0;

/// A release build's memory in KiB: idle, and at most (issue 3, "Figures").
const IDLE_KIB: u64 = 20 * 1_024;
const PEAK_KIB: u64 = 64 * 1_024;

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn an_idle_node_is_woken_by_the_protocols_timers_alone() {
    let Some(stage) = Stage::set() else {
        return;
    };
    let roles = ["client", "gateway"];
    let pids = roles.map(|role| stage.pid(role));
    let data = |number: usize| Thread::of(pids[number], &format!("{} data", roles[number]));
    rest(SETTLING);

    let before = [0, 1].map(|number| (data(number), busy(pids[number])));
    rest(IDLE);
    for (number, role) in roles.into_iter().enumerate() {
        let (thread, process) = before[number];
        let (thread, process) = (data(number).since(thread), busy(pids[number]) - process);
        let share = process.as_secs_f64() / IDLE.as_secs_f64();
        println!(
            "{role}: {} wake-ups of the data thread in {} s, {:.2} ms of it, {:.2} ms of the process: {:.4} % of a core",
            thread.wake_ups,
            IDLE.as_secs(),
            millis(thread.busy),
            millis(process),
            share * 1e2
        );
        let slower = if cfg!(debug_assertions) { DEBUG } else { 1.0 };
        assert!(share <= SHARE * slower, "{role}: {share}");
        assert!(thread.wake_ups as f64 <= WAKE_UPS * IDLE.as_secs_f64());
    }
    stage.close();
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn memory_that_a_load_has_taken_is_given_back() {
    let Some(stage) = Stage::set() else {
        return;
    };
    let is_soak = env::var_os("CONNLIB_SOAK").is_some_and(|soak| soak == "1");
    let pause = Duration::from_secs(if is_soak { 60 } else { 25 });
    let [client, resource] = ["client", "resource"].map(|place| stage.demo.namespace(place));
    let roles = ["client", "gateway"];
    let pids = roles.map(|role| stage.pid(role));
    let memory = || pids.map(Memory::of);

    let idle = memory();
    for is_upload in [true, false] {
        let address = at_resource(5_201);
        let streams = match is_upload {
            true => Streams::upload(&client, &resource, address, 4),
            false => Streams::download(&client, &resource, address, 4),
        };
        let rate = streams.rate(Duration::from_secs(5));
        println!("{:.0} Mbit/s", rate * 8e-6);
        assert!(rate > 0.0);
    }
    let loaded = memory();
    rest(pause);
    let rested = memory();

    for (number, role) in roles.into_iter().enumerate() {
        let (idle, rested) = (idle[number].resident, rested[number].resident);
        let peak = loaded[number].peak;
        println!(
            "{role}: {idle} KiB idle, {} at the end of the load, {peak} at most, {rested} after {} s",
            loaded[number].resident,
            pause.as_secs()
        );
        assert!(
            rested <= 2 * idle,
            "{role}: {idle} KiB before, {rested} after"
        );
        if !cfg!(debug_assertions) {
            assert!(idle <= IDLE_KIB, "{role}: {idle} KiB idle");
            assert!(peak <= PEAK_KIB, "{role}: {peak} KiB at most");
        }
    }
    stage.close();
}
