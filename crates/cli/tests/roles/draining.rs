//! A relay that is told to end: with `--drain` it serves those who have an allocation, and nobody else. And what it tells of
//! itself over HTTP meanwhile.

use connlib_os::process;

use crate::lone_relay::{Client, Relay};

#[test]
fn a_relay_that_drains_serves_whom_it_serves_until_they_leave() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path(), &["--drain=600"]);
    assert_eq!(relay.health("/healthz"), 200);
    assert_eq!(relay.health("/readyz"), 200);
    assert_eq!(relay.counted("connlib_relay_allocations"), "0");

    let mut stays = Client::new(relay.addr);
    assert_eq!(stays.allocate(), Ok(()));
    assert_eq!(relay.counted("connlib_relay_allocations"), "1");
    let made = "connlib_relay_responses_total{message_type=\"allocate\",response_class=\"success\",error_code=\"\"}";
    assert_eq!(relay.counted(made), "1");

    relay.begin_to_drain();
    assert_eq!(relay.health("/readyz"), 503);
    assert_eq!(relay.health("/healthz"), 200);
    assert_eq!(Client::new(relay.addr).allocate(), Err(508));
    assert_eq!(stays.refresh(600), Ok(()));
    assert_eq!(stays.refresh(0), Ok(()));

    let (code, log) = relay.running.wait();
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[test]
fn a_second_signal_ends_a_relay_that_drains() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path(), &["--drain=1h"]);
    assert_eq!(Client::new(relay.addr).allocate(), Ok(()));

    relay.begin_to_drain();
    process::terminate(relay.running.pid()).unwrap();

    assert_eq!(relay.running.wait().0, 0);
}

#[test]
fn a_relay_waits_no_longer_than_it_may() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path(), &["--drain", "1"]);
    assert_eq!(Client::new(relay.addr).allocate(), Ok(()));

    process::terminate(relay.running.pid()).unwrap();
    relay
        .running
        .wait_for_line("Ending though some still have allocations");

    assert_eq!(relay.running.wait().0, 0);
}

#[test]
fn a_relay_ends_at_once_by_default() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path(), &[]);
    assert_eq!(Client::new(relay.addr).allocate(), Ok(()));

    assert!(relay.running.terminate().success());
}

#[test]
fn limits_and_refused_peers_are_what_the_operator_says() {
    let directory = tempfile::tempdir().unwrap();
    let limits = [
        "--max-allocations=2",
        "--max-allocations-per-user=1",
        "--refuse-private-peers",
    ];
    let relay = Relay::start(directory.path(), &limits);

    let mut first = Client::new(relay.addr);
    assert_eq!(first.allocate(), Ok(()));
    assert_eq!(Client::new(relay.addr).allocate(), Err(486));
    assert_eq!(Client::named(relay.addr, "bob").allocate(), Ok(()));
    assert_eq!(Client::named(relay.addr, "carol").allocate(), Err(508));
    assert_eq!(first.permit("10.1.2.3:9"), Err(403));
    assert_eq!(first.permit("192.0.2.7:9"), Ok(()));
}
