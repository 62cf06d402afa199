//! Faults of devices, drawn.

use std::time::Duration;

use super::Choices;
use crate::faults::Faults;

/// Errors that cost a datagram: no way there, forbidden, the source address is gone.
const SEND_ERRORS: [i32; 3] = [101, 1, 99];

/// Errors that other datagrams brought about: refused, no way there.
const RECEIVE_ERRORS: [i32; 2] = [111, 113];

/// Draws some, or none.
pub(super) fn faults(choices: &mut Choices<'_>) -> Faults {
    let mut span = || match choices.percent(30) {
        true => {
            let start = choices.below(80);
            start..start + choices.range(1..20)
        }
        false => 0..0,
    };
    let [sends, receives, writes, reads, memory] = std::array::from_fn(|_| span());
    let accepts = choices.percent(20).then(|| 1 + choices.index(3));
    let send_errors = choices.percent(10).then(|| {
        let nth = choices.below(200);
        (nth, SEND_ERRORS[choices.index(SEND_ERRORS.len())])
    });
    let receive_errors = choices.percent(30).then(|| {
        let nth = choices.below(200);
        (nth, RECEIVE_ERRORS[choices.index(RECEIVE_ERRORS.len())])
    });

    Faults {
        sends_blocked: sends,
        receives_blocked: receives,
        writes_blocked: writes,
        reads_blocked: reads,
        sends_without_memory: memory,
        accepts,
        send_errors: send_errors.into_iter().collect(),
        receive_errors: receive_errors.into_iter().collect(),
        refuses_runs: choices.percent(20),
        tun_comes_at: match choices.percent(20) {
            true => choices.millis(1..900),
            false => Duration::ZERO,
        },
        tun_vanishes_at: None,
        outputs_are_slow: choices.percent(20),
        workers: choices.percent(30).then(|| choices.below(u64::MAX)),
        pace: None,
        wire: None,
    }
}
