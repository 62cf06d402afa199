use std::time::Duration;

use connlib_wire::ecn::Ecn;
use connlib_wire::ip;
use connlib_wire::key::PresharedKey;
use connlib_wire::offload::VirtioHeader;
use connlib_wire::train::MAX_SEGMENTS;
use zeroize::Zeroizing;

use super::*;
use crate::wireguard::{Event, Incoming, Interface, Tunnel};

/// Lengths of packets, as 6 and 3 are in the vectors.
const LONG: usize = 96;
const SHORT: usize = 48;

/// Two ends of a session.
struct Session {
    now: std::time::Instant,
    sender: Tunnel,
    receiver: Tunnel,
    at_receiver: Interface,
}

impl Session {
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    fn begin() -> Self {
        let now = std::time::Instant::now();
        let interface = |seed| Interface::new(Zeroizing::new([seed; 32]), now, Duration::ZERO);
        let (mut here, mut there) = (interface(1), interface(2));
        let key = PresharedKey::new([3; 32]);
        let mut sender = here.new_tunnel(there.public_key(), &key, now).unwrap();
        let mut receiver = there.new_tunnel(here.public_key(), &key, now).unwrap();
        let addr = "192.0.2.9:9".parse().unwrap();

        let initiation = sender.initiate(now).unwrap();
        let Ok(Incoming::Initiation(_, message)) = there.receive(now, addr, &initiation) else {
            panic!("no initiation");
        };
        let response = receiver.handle_initiation(now, message).unwrap();
        let Ok(Incoming::Response(_, message)) = here.receive(now, addr, &response) else {
            panic!("no response");
        };
        sender.handle_response(now, message).unwrap();
        while let Some(Event::Send(_) | Event::Established) = sender.poll_event() {}

        Self {
            now,
            sender,
            receiver,
            at_receiver: there,
        }
    }

    /// The trains that packets of these lengths become, each told apart by what it is filled with.
    fn seal(&mut self, dst: &str, channel: Option<ChannelNumber>, lens: &[usize]) -> Vec<Transmit> {
        let route = Route {
            src: None,
            dst: dst.parse().unwrap(),
            ecn: Ecn::NotEct,
        };
        let mut job = SealJob::new(Pool::new(65_535, 4), 0, route, channel);
        for (number, len) in lens.iter().enumerate() {
            let packet = SuperPacket::parse(VirtioHeader::default(), packet(*len, number as u8));
            job.add(packet.unwrap(), 0);
            job.add_counter(self.sender.begin_seal(self.now).unwrap());
        }
        job.run();

        std::mem::take(&mut job.trains)
    }

    /// The packets in a train, padding included.
    fn open(&mut self, train: &Transmit) -> Vec<Vec<u8>> {
        let addr = "192.0.2.9:9".parse().unwrap();
        let open = |datagram: &[u8]| {
            let received = self.at_receiver.receive(self.now, addr, datagram);
            let Ok(Incoming::Data(_, message)) = received else {
                panic!("no data");
            };
            let mut packet = vec![0; datagram.len()];
            let opening = self.receiver.begin_open(self.now, message).unwrap();
            let opened = opening.open(datagram, &mut packet, 0);
            let range = self.receiver.commit_open(self.now, opened).unwrap();
            packet[range.unwrap()].to_vec()
        };

        train.datagrams().map(open).collect()
    }
}

const D1: &str = "192.0.2.1:1000";
/// The headers of IPv4 and UDP.
const HEADERS: usize = 20 + 8;

const D1_V6: &str = "[2001:db8::1]:1000";

fn packet(len: usize, fill: u8) -> Buffer {
    let payload = vec![fill; len - HEADERS];
    let (from, to) = ("100.64.0.1:1", "10.20.0.10:2");
    let pool = Pool::new(2_048, 1);

    ip::udp(&pool, from.parse().unwrap(), to.parse().unwrap(), &payload)
        .unwrap()
        .into_inner()
}

/// For each train, the number of datagrams and the size of all but the last.
fn shapes(trains: &[Transmit]) -> Vec<(usize, usize)> {
    trains
        .iter()
        .map(|train| (train.segments(), train.segment_size))
        .collect()
}

#[test]
fn equal_datagrams_and_a_short_tail_make_one_train() {
    let trains = Session::begin().seal(D1, None, &[LONG, LONG, LONG, SHORT]);
    let size = wireguard::sealed_len(LONG);

    assert_eq!(shapes(&trains), [(4, size)]); // io.md V1
    assert_eq!(
        trains[0].payload.len(),
        3 * size + wireguard::sealed_len(SHORT)
    );
}

#[test]
fn nothing_follows_a_short_tail() {
    let trains = Session::begin().seal(D1, None, &[LONG, LONG, SHORT, LONG]);
    let size = wireguard::sealed_len(LONG);

    assert_eq!(shapes(&trains), [(3, size), (1, size)]); // V2
}

#[test]
fn a_datagram_never_joins_an_older_train() {
    let trains = Session::begin().seal(D1, None, &[64, LONG, SHORT, 32]);
    let size = wireguard::sealed_len;

    // V4
    assert_eq!(
        shapes(&trains),
        [(1, size(64)), (2, size(LONG)), (1, size(32))]
    );
}

#[test]
fn a_train_ends_at_the_size_and_at_the_count_the_kernel_takes() {
    // A full datagram behind a relay: 1,280 bytes, 32 of WireGuard, 4 of the channel.
    let channel = ChannelNumber::new(0x4000);
    assert!(channel.is_some());
    let trains = Session::begin().seal(D1, channel, &[1280; 50]);
    assert_eq!(shapes(&trains), [(49, 1316), (1, 1316)]); // V5

    let trains = Session::begin().seal(D1, channel, &[64; 65]);
    assert_eq!(shapes(&trains), [(64, 100), (1, 100)]); // V6
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    /// io.md P1–P3: packets come out as they went in, and every train is one that the kernel takes.
    #[test]
    fn trains_keep_order_and_content(
        lens in proptest::collection::vec(29..1281usize, 0..300),
        is_v6: bool,
        is_relayed: bool,
    ) {
        let channel = ChannelNumber::new(0x4001).filter(|_| is_relayed);
        let header_len = channel.map_or(0, |_| channel::HEADER_LEN);
        let mut session = Session::begin();
        let trains = session.seal(if is_v6 { D1_V6 } else { D1 }, channel, &lens);

        let mut opened = Vec::new();
        for mut train in trains {
            proptest::prop_assert!(train.segments() <= MAX_SEGMENTS);
            proptest::prop_assert!(train.payload.len() <= max_len(train.route.dst, train.segment_size));
            if header_len == 0 {
                opened.extend(session.open(&train));
                continue;
            }
            let inside: Vec<Vec<u8>> = train
                .datagrams()
                .map(|datagram| datagram[header_len..].to_vec())
                .collect();
            train.segment_size -= header_len;
            train.payload.truncate(0);
            for datagram in inside {
                train.payload.extend(datagram.len()).unwrap().copy_from_slice(&datagram);
            }
            opened.extend(session.open(&train));
        }

        proptest::prop_assert_eq!(opened.len(), lens.len());
        for (number, (opened, len)) in opened.iter().zip(&lens).enumerate() {
            proptest::prop_assert_eq!(&opened[..*len], &packet(*len, number as u8)[..]);
        }
    }
}
