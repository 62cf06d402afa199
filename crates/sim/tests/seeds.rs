//! Many worlds, each from a seed that is used once.
//!
//! `SEEDS=n` says how many, `FIRST=s` where to begin (some time in between by default), `REPRO=s` runs one world alone: a seed,
//! or a file that a failure left behind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use connlib_sim::scenario::Drive;
use connlib_sim::{Campaign, Scenario, World};
use support::{number, report, seeds};

#[test]
fn every_world_holds() {
    if let Ok(which) = std::env::var("REPRO") {
        let scenario = match which
            .strip_prefix("0x")
            .map(|hex| u64::from_str_radix(hex, 16))
        {
            Some(seed) => Scenario::from_seed(seed.unwrap()),
            None => match which.parse() {
                Ok(seed) => Scenario::from_seed(seed),
                Err(_) => Scenario::parse(&std::fs::read_to_string(&which).unwrap()).unwrap(),
            },
        };
        println!("{scenario}");
        println!("{:#?}", report(scenario));
        return;
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "each run is to try worlds that none has tried; the first seed is printed"
    )]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = number("FIRST").unwrap_or(now.as_secs() << 20);
    println!("FIRST={first}");
    match Campaign::seeds(first, seeds()) {
        Ok(campaign) => {
            println!("{campaign}");
            judges_enough(&campaign);
            excuses_keep_to_their_budgets(&campaign);
        }
        Err(failure) => panic!("{}", support::save(failure)),
    }
}

/// An oracle that excuses everything holds, and says nothing: of many worlds, it must have judged half of what is usual at least.
fn judges_enough(campaign: &Campaign) {
    let Campaign { worlds, judged, .. } = campaign;
    if *worlds < 1_000 {
        return;
    }
    let of_bursts = if *worlds < 10_000 { 4 } else { 1 };
    for (what, judged, usual_in_thousand) in [
        ("requests", judged.probes, 2_000),
        ("questions", judged.questions, 6_500),
        ("known outside", judged.outside, 2_100),
        ("known at sites", judged.at_sites, 90),
        ("overlapping", judged.overlapping, 3_200),
        ("prohibited", judged.prohibited, 3_400),
        ("unreachable", judged.unreachable, 2_000),
        ("forged", judged.forged, 9_500),
        // These come in bursts: of a few worlds there may be few.
        ("to the Internet", judged.internet, 340 / of_bursts),
        ("errors", judged.errors, 100 / of_bursts),
        ("refusals", judged.refusals, 60 / of_bursts),
        ("fresh", judged.fresh, 1),
    ] {
        let least = usual_in_thousand * worlds / 2_000;
        assert!(judged >= least, "{what}: {judged}, not {least}");
    }
}

/// An excuse that is used more often than it used to be hides something.
fn excuses_keep_to_their_budgets(campaign: &Campaign) {
    if campaign.worlds < 1_000 {
        return;
    }
    for (excuse, count) in campaign.excused_per_million() {
        let budget = excuse.budget();
        assert!(
            count <= budget,
            "{excuse}: {count} of a million, not {budget}"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_twice() {
    for seed in 0..seeds().div_ceil(40) {
        let [one, two] = [(); 2].map(|()| report(Scenario::from_seed(seed)));
        assert_eq!(one, two, "seed {seed}");
        assert!(one.trace.entries() > 50);
    }
}

#[test]
fn another_seed_gives_another_trace() {
    let [one, two] = [1, 2].map(|seed| report(Scenario::from_seed(seed)).trace);
    assert_ne!(one, two);
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "a call each millisecond is for builds that are optimised"
)]
fn whoever_drives_the_loops_has_the_same_outcome() {
    for seed in 0..seeds().div_ceil(200) {
        let [exact, milli, late] = [Drive::Exact, Drive::EveryMilli, Drive::Late].map(|drive| {
            let mut scenario = support::calm(seed);
            scenario.drive = drive;
            report(scenario).outcomes
        });
        assert_eq!(exact, milli, "seed {seed}");
        assert_eq!(exact, late, "seed {seed}");
    }
}

#[test]
fn jobs_in_any_order_and_devices_that_stand_have_the_same_outcome() {
    for seed in 0..seeds().div_ceil(100) {
        let outcomes = |with: fn(&mut Scenario, u64)| {
            let mut scenario = support::calm(seed);
            with(&mut scenario, seed);
            report(scenario).outcomes
        };
        let plain = outcomes(|_, _| {});
        let shuffled = outcomes(|scenario, seed| {
            for host in &mut scenario.hosts {
                host.faults.workers = Some(seed);
            }
        });
        let piecemeal = outcomes(|scenario, _| {
            for host in &mut scenario.hosts {
                host.faults.accepts = Some(1);
                host.faults.sends_blocked = 5..25;
                host.faults.reads_blocked = 3..9;
                host.faults.outputs_are_slow = true;
            }
        });
        assert_eq!(plain, shuffled, "seed {seed}");
        assert_eq!(plain, piecemeal, "seed {seed}");
    }
}

#[test]
fn a_tun_device_that_vanishes_is_the_end_and_says_so() {
    for seed in 0..5 {
        let mut scenario = support::calm(seed);
        scenario.hosts[0].faults.tun_vanishes_at = Some(std::time::Duration::from_secs(2));
        let failure = World::new(scenario).run().unwrap_err();

        assert!(failure.what.contains("the TUN device is gone"), "{failure}");
        assert!(failure.at >= std::time::Duration::from_secs(2), "{failure}");
    }
}
