//! Access that is taken back while packets flow.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::namespace::{Namespace, run_in};

use crate::site::{HOST_V4, Site, TOPOLOGY, plan};
use crate::tools::{PATIENCE, pause, wait_for};

const PORT: u16 = 9;
const EVERY: Duration = Duration::from_millis(5);

/// Whoever takes longer has not heard of it. The goal is a tenth of a second; how long it took is printed.
const NEVER: Duration = Duration::from_secs(2);

/// Something that is done again and again on a thread until it is stopped; each time that it was, and what was seen.
struct Doing<T> {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, T)>>,
}

impl<T: Send + 'static> Doing<T> {
    fn start(mut step: impl FnMut() -> Option<T> + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let clock = Clock::new();
            let mut seen = Vec::new();
            while !told.load(Ordering::Relaxed) {
                seen.extend(step().map(|what| (clock.now(), what)));
            }
            seen
        });

        Self { is_over, thread }
    }

    fn stop(self) -> Vec<(Instant, T)> {
        self.is_over.store(true, Ordering::Relaxed);

        self.thread.join().unwrap()
    }
}

fn bound(namespace: &Namespace, at: &str) -> UdpSocket {
    let socket = run_in(namespace, || UdpSocket::bind(at)).unwrap().unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();

    socket
}

/// Sends a packet each few milliseconds, and notes what a program is told of it.
fn knocking(client: &Namespace, to: SocketAddr) -> Doing<ErrorKind> {
    let socket = bound(client, "0.0.0.0:0");
    socket.connect(to).unwrap();
    socket.set_nonblocking(true).unwrap();

    Doing::start(move || {
        pause(EVERY);
        let sent = socket.send(b"knock");
        let heard = socket
            .recv(&mut [0; 8])
            .err()
            .filter(|error| error.kind() != ErrorKind::WouldBlock);

        sent.err().or(heard).map(|error| error.kind())
    })
}

/// Notes each packet that comes.
fn hearing(host: &Namespace, at: &str) -> Doing<()> {
    let socket = bound(host, at);

    Doing::start(move || socket.recv(&mut [0; 8]).ok().map(drop))
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn nothing_arrives_once_access_is_taken_back_and_programs_are_told() {
    let Some(site) = Site::planned(plan(), &[], &["gateway"], true) else {
        return;
    };
    let policy = "[[policy]]\ngroup = \"staff\"\nresource = \"lan\"\n";
    assert!(TOPOLOGY.contains(policy));
    let without = TOPOLOGY.replace(policy, "");
    // By name the same host is reached by a resource of its own, which stays.
    let name = site.addresses("two.corp.test", "ahostsv4");
    let mut worst = [Duration::ZERO; 2];
    for _ in 0..3 {
        let arrives = hearing(site.host(), &format!("{}:{PORT}", HOST_V4[0]));
        let stays = hearing(site.host(), &format!("{}:{}", HOST_V4[1], PORT + 1));
        let by_address = knocking(
            site.client(),
            SocketAddr::new(HOST_V4[0].parse().unwrap(), PORT),
        );
        let by_name: Vec<_> = name
            .iter()
            .map(|ip| knocking(site.client(), SocketAddr::new(*ip, PORT + 1)))
            .collect();
        let flows = wait_for(PATIENCE, || site.world.path());
        assert!(flows.is_some());
        pause(Duration::from_secs(1));

        let told_at = site.world.clock.now();
        site.world.apply(&without);
        let done_at = site.world.clock.now();
        pause(NEVER + Duration::from_secs(1));
        let arrived = arrives.stop();
        let stayed = stays.stop();
        let heard = by_address.stop();
        for knocking in by_name {
            knocking.stop();
        }
        let (last, ()) = arrived.last().expect("nothing arrived before");
        let (first_error, _) = heard
            .iter()
            .find(|(at, _)| *at > told_at)
            .expect("the program was told nothing");
        let spans = [*last, *first_error].map(|at| at.saturating_duration_since(told_at));
        println!(
            "taken back: the last packet arrived {:?} and the program was told {:?} after the portal began to hear of it, which \
             took {:?}; told {:?}",
            spans[0],
            spans[1],
            done_at - told_at,
            heard.last().map(|(_, kind)| *kind),
        );
        worst = [worst[0].max(spans[0]), worst[1].max(spans[1])];
        for (at, kind) in &heard {
            assert!(*at > told_at, "{kind} before access was taken back");
            let kinds = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
            assert!(kinds.contains(kind), "{kind}");
        }
        // What another resource lets through went on all the time.
        let (last, ()) = stayed.last().expect("the name was not reached");
        assert!(
            *last > done_at + Duration::from_millis(500),
            "the name is reached no longer"
        );

        site.world.apply(TOPOLOGY);
    }
    assert!(worst[0] < NEVER && worst[1] < NEVER, "{worst:?}");
    site.assert_calm();
}
