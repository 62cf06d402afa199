//! A relay of several threads is one relay to its clients.

use crate::lone_relay::{Client, Relay};

/// So many that some are of two threads, but for one run in 2^24.
const PAIRS: usize = 24;

#[test]
fn clients_reach_each_other_whichever_thread_serves_them() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path(), &["--threads=2"]);
    let mut pairs: Vec<_> = (0..PAIRS)
        .map(|_| [Client::new(relay.addr), Client::new(relay.addr)])
        .collect();

    for [one, other] in &mut pairs {
        assert_eq!(one.allocate(), Ok(()));
        assert_eq!(other.allocate(), Ok(()));
        assert_eq!(one.bind(other.relayed()), Ok(()));
        assert_eq!(other.bind(one.relayed()), Ok(()));
        one.say(b"there");
        assert_eq!(other.hear(), b"there");
        other.say(b"and back");
        assert_eq!(one.hear(), b"and back");
    }

    let allocations = relay.counted("connlib_relay_allocations");
    assert_eq!(allocations, (2 * PAIRS).to_string());
    // Who is of the same thread is served without the kernel.
    let relayed = |direction: &str, by: &str| -> usize {
        let metric = format!(
            "connlib_relay_relayed_datagrams_total{{direction=\"{direction}\",by=\"{by}\"}}"
        );
        relay.counted(&metric).parse().unwrap()
    };
    let (within, across) = (
        relayed("between_clients", "any"),
        relayed("to_peers", "channel"),
    );
    assert_eq!(within + across, 2 * PAIRS);
    assert!(across > 0, "both threads serve");
    assert_eq!(relayed("to_clients", "channel"), across);
    assert!(relay.running.terminate().success());
}

#[test]
fn a_relay_of_several_threads_drains_when_all_of_them_have_nobody_left() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path(), &["--threads=2", "--drain=600"]);
    let mut clients: Vec<_> = (0..16).map(|_| Client::new(relay.addr)).collect();
    for client in &mut clients {
        assert_eq!(client.allocate(), Ok(()));
    }

    relay.begin_to_drain();
    for client in &mut clients {
        assert_eq!(
            client.refresh(600),
            Ok(()),
            "nobody is cut off before the last one left"
        );
    }
    for client in &mut clients {
        assert_eq!(client.refresh(0), Ok(()));
    }

    assert_eq!(relay.running.wait().0, 0);
}
