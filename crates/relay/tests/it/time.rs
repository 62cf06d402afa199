//! Deadlines are exact: driven by them alone, the server does what it does when it is asked all the time.

use std::time::Duration;

use connlib_relay::{Command, Reason};
use proptest::prelude::*;

use crate::support::{Answer, Ask, Rig, client, peer, secs, user};

const STEP: Duration = Duration::from_millis(10);

/// Something that a client does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Allocate(u8, u64),
    Refresh(u8, u64),
    Bind(u8, u16, u8),
}

/// What came out, and when.
type Trace = Vec<(Duration, Vec<Command>, Vec<Answer>, usize)>;

/// Who calls the server, beside its clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Caller {
    /// At the instants that it asks for.
    Exact,
    /// And every 10 ms between them.
    Stepping,
}

#[test]
fn outputs_that_wait_are_due_at_once() {
    let mut rig = Rig::new();
    assert_eq!(rig.server.poll_timeout(), None);
    let request = rig.bare(&Ask::allocate());
    let _ = rig.send(client(1), &request);
    assert_eq!(
        rig.server.poll_timeout(),
        Some((rig.now, Reason::OutputWaits))
    );

    rig.answer();
    assert_eq!(rig.server.poll_timeout(), None);
}

#[test]
fn each_deadline_says_what_it_is_for() {
    let mut rig = Rig::new();
    let alice = user("a");
    rig.ask(client(1), &alice, &Ask::allocate().lifetime(secs(1_000)));
    rig.bind(client(1), &alice, 0x4000, peer(1));
    let mut seen = Vec::new();
    while let Some((at, reason)) = rig.server.poll_timeout() {
        let wait = at.duration_since(rig.now);
        seen.push((wait, reason));
        rig.pass(wait);
    }

    assert_eq!(
        seen,
        [
            (secs(600), Reason::ChannelExpires),
            (secs(300), Reason::ChannelCooledDown),
            (secs(100), Reason::AllocationExpires),
        ]
    );
}

#[test]
fn nothing_is_asked_for_twice() {
    let mut rig = Rig::new();
    rig.allocate(client(1), &user("a"));
    rig.bind(client(1), &user("a"), 0x4000, peer(1));
    let mut calls = 0;
    while let Some(wait) = rig.next_deadline() {
        rig.pass(wait);
        calls += 1;
        assert!(calls < 10, "a busy loop");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn stepping_changes_nothing(script in script()) {
        let exact = run(&script, Caller::Exact);
        let stepping = run(&script, Caller::Stepping);
        prop_assert_eq!(&exact, &stepping);
        prop_assert_eq!(exact, run(&script, Caller::Exact), "the same seed, the same trace");
    }

    #[test]
    fn being_late_changes_no_outcome(script in script(), late in 0_u64..100) {
        let mut on_time = Rig::new();
        let mut tardy = Rig::new();
        for (wait, act) in script {
            for rig in [&mut on_time, &mut tardy] {
                rig.forget_nonces();
            }
            pass_exactly(&mut on_time, wait, Duration::ZERO);
            pass_exactly(&mut tardy, wait, Duration::from_millis(late));
            prop_assert_eq!(perform(&mut on_time, act), perform(&mut tardy, act));
            prop_assert_eq!(on_time.server.stats(), tardy.server.stats());
        }
        prop_assert_eq!(on_time.commands, tardy.commands);
    }
}

fn script() -> impl Strategy<Value = Vec<(Duration, Act)>> {
    let lifetime = prop::sample::select(vec![0_u64, 7, 60, 300, 600, 900, 3_600]);
    let act = prop_oneof![
        (0_u8..3, lifetime.clone()).prop_map(|(n, lifetime)| Act::Allocate(n, lifetime)),
        (0_u8..3, lifetime).prop_map(|(n, lifetime)| Act::Refresh(n, lifetime)),
        (0_u8..3, 0x4000_u16..0x4003, 0_u8..3)
            .prop_map(|(n, number, peer)| Act::Bind(n, number, peer)),
    ];
    let wait = prop_oneof![
        (0_u64..20).prop_map(|steps| STEP * steps as u32),
        (0_u64..400).prop_map(secs),
        prop::sample::select(vec![secs(300), secs(600), secs(900)]),
    ];

    prop::collection::vec((wait, act), 1..12)
}

fn run(script: &[(Duration, Act)], caller: Caller) -> Trace {
    let mut rig = Rig::new();
    let began_at = rig.now;
    let mut trace = Trace::new();
    let mut note = |rig: &mut Rig| {
        let answers = rig.answers();
        let commands = std::mem::take(&mut rig.commands);
        if !(answers.is_empty() && commands.is_empty()) {
            let channels = rig.server.stats().channels;
            trace.push((rig.now - began_at, commands, answers, channels));
        }
    };

    let end = [(secs(5_000), Act::Refresh(0, 0))];
    for (wait, act) in script.iter().chain(&end) {
        let until = rig.now + *wait;
        while rig.now < until {
            let next = rig.next_deadline().unwrap_or(Duration::MAX);
            let next = match caller {
                Caller::Stepping => next.min(STEP),
                Caller::Exact => next,
            };
            rig.pass(next.min(until - rig.now));
            note(&mut rig);
        }
        rig.forget_nonces();
        perform(&mut rig, *act);
        note(&mut rig);
    }

    trace
}

/// Serves each deadline `late` after it fell due, but no later than `wait` is over.
fn pass_exactly(rig: &mut Rig, wait: Duration, late: Duration) {
    let until = rig.now + wait;
    while let Some(next) = rig.next_deadline()
        && rig.now + next + late < until
    {
        rig.pass(next + late);
    }
    let rest = until - rig.now;
    rig.pass(rest);
}

fn perform(rig: &mut Rig, act: Act) -> Option<(Option<u16>, Vec<u8>)> {
    let (n, ask) = match act {
        Act::Allocate(n, lifetime) => (n, Ask::allocate().both().lifetime(secs(lifetime))),
        Act::Refresh(n, lifetime) => (n, Ask::refresh(secs(lifetime))),
        Act::Bind(n, number, to) => (n, Ask::channel_bind(number, peer(to))),
    };
    let answer = rig.ask(client(n), &user(&n.to_string()), &ask)?;

    Some((answer.code(), answer.bytes))
}
