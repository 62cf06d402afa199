use connlib_wire::ip::syn;
use connlib_wire::offload::VirtioHeader;

use super::*;

fn opening(pool: &Pool, port: u16, ip_id: u8) -> Vec<u8> {
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    let mut from = end("100.64.0.1:1");
    from.set_port(port);
    let mut bytes = syn(pool, from, end("10.20.0.10:80"))
        .unwrap()
        .bytes()
        .to_vec();
    bytes[5] = ip_id;
    bytes
}

#[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
fn start() -> Instant {
    Instant::now()
}

fn resource() -> ResourceId {
    ResourceId(uuid::Uuid::from_u128(1))
}

fn want(requests: &mut Requests, now: Instant) -> Asked {
    requests.want(now, resource(), &Name::parse("example.org").unwrap())
}

#[test]
fn a_request_that_nobody_answers_is_repeated_ever_more_seldom_and_ends() {
    let mut requests = Requests::default();
    let start = start();
    assert_eq!(want(&mut requests, start), Asked::Now);
    let mut asked = Vec::new();
    let mut now = start;
    while let Some(at) = requests.poll_timeout() {
        assert!(at > now, "it goes on");
        now = at;
        let secs = now.duration_since(start).as_secs();
        asked.extend(requests.due(now).ask.iter().map(|_| secs));
    }
    assert_eq!(asked, [2, 6, 14]);
    assert_eq!(now, start + GIVE_UP_AFTER);
    assert_eq!(want(&mut requests, now), Asked::Now);

    // Whoever is back is asked at once, and as often as at first.
    requests.ask_again(now);
    assert_eq!(requests.due(now).ask, [resource()]);
    assert_eq!(requests.poll_timeout(), Some(now + REPEAT_INTERVAL));
}

#[test]
fn refusals_in_a_row_count_for_longer_until_resources_change() {
    for (error, expected) in [
        (IcmpError::Prohibited, [2, 4, 8, 16, 30, 30]),
        (IcmpError::Unreachable, [2, 4, 4, 4, 4, 4]),
    ] {
        let mut requests = Requests::default();
        let mut now = start();
        for seconds in expected {
            assert_eq!(want(&mut requests, now), Asked::Now);
            requests.refused(now, resource(), error);
            let just_before = now + Duration::from_secs(seconds) - Duration::from_nanos(1);
            requests.due(just_before);
            assert_eq!(want(&mut requests, just_before), Asked::Refused(error));
            assert_eq!(requests.refusal(just_before, resource()), Some(error));
            now += Duration::from_secs(seconds);
            requests.due(now);
            assert_eq!(requests.refusal(now, resource()), None);
        }
        assert_eq!(want(&mut requests, now), Asked::Now);
        requests.refused(now, resource(), error);
        requests.forget_refusals();
        assert_eq!(want(&mut requests, now), Asked::Now);
        requests.refused(now, resource(), error);
        now += REPEAT_INTERVAL;
        requests.due(now);
        assert_eq!(requests.refusal(now, resource()), None, "as at first");

        // Long after, nobody remembers.
        now += REPEAT_INTERVAL;
        requests.due(now);
        assert_eq!(requests.poll_timeout(), None);
    }
}

#[test]
fn of_a_segment_that_opens_a_connection_the_newest_copy_waits() {
    let pool = Pool::new(2_048, 16);
    let mut held = VecDeque::new();
    for (port, ip_id) in [(4_000, 1), (4_001, 1), (4_000, 2), (4_000, 3), (4_001, 2)] {
        let copy = pool.copy(&opening(&pool, port, ip_id)).unwrap();
        let mut packet = SuperPacket::parse(VirtioHeader::default(), copy).unwrap();
        keep(&mut held, &mut packet, &pool);
    }
    let held: Vec<_> = held.iter().map(|held| held.to_vec()).collect();
    assert_eq!(held, [opening(&pool, 4_000, 3), opening(&pool, 4_001, 2)]);
}
