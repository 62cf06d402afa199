//! Networks that are hard to use, over many seeds: what is promised for them holds in each.
//!
//! `SEEDS=n` tries half as many of the first, and a twentieth of the second, which take long.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use connlib_sim::Scenario;
use support::{report, seeds};

/// A tenth of what is sent is lost, and a round trip takes 300 ms.
const LOSSY_AND_SLOW: &str = r#"scenario v1 "a tenth is lost at a round trip of 300 ms"
lasts 11s
host C1 client ip4=203.0.113.1
host G1 gateway site=A ip4=203.0.113.2
host R1 relay ip4=198.51.100.1 ip6=2001:db8:1::1
link C1 latency=100ms loss=5%
link G1 latency=50ms loss=5%
link R1 latency=20ms loss=1%
res A cidr=10.20.0.0/16 site=A
t=1s ping C1 10.20.0.10 count=46 every=200ms size=64 id=p
expect answered p least=1
"#;

/// A round trip by the direct path takes 300 to 700 ms, another one each time.
const JITTERY: &str = r#"scenario v1 "round trips of 300 to 700 ms on the direct path"
lasts 73s
host C1 client ip4=203.0.113.1
host G1 gateway site=A ip4=203.0.113.2
host R1 relay ip4=198.51.100.1 ip6=2001:db8:1::1
link C1 latency=100ms jitter=100ms
link G1 latency=50ms jitter=100ms
link R1 latency=20ms
res A cidr=10.20.0.0/16 site=A
t=1s ping C1 10.20.0.10 count=345 every=200ms size=64 id=p
expect answered p least=330
expect path-changes C1 most=1 from=10s
"#;

fn holds(text: &str, count: u64) {
    let scenario = Scenario::parse(text).unwrap();
    for seed in 0..count {
        let mut scenario = scenario.clone();
        scenario.seed = seed;
        report(scenario);
    }
}

#[test]
fn whoever_loses_a_tenth_and_waits_300_ms_for_each_answer_connects_within_ten_seconds() {
    holds(LOSSY_AND_SLOW, seeds().div_ceil(2));
}

#[test]
fn round_trips_that_vary_by_400_ms_change_the_path_once_a_minute_at_most() {
    holds(JITTERY, seeds().div_ceil(20));
}
