//! TUN devices: single packets, super-packets, and what limits them.

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket as StdUdpSocket};
use std::sync::PoisonError;
use std::time::Duration;

use connlib_os::namespace::{Namespace, run_in};
use connlib_os::netlink::{NetlinkError, QueueLimits, RouteSpec};
use connlib_os::poll::{Interest, Poller, Token};
use connlib_os::tun::{Joins, MAX_PARTS, Tun, TunDevice, TunError};
use connlib_os::udp::{Outgoing, Udp};
use connlib_wire::ecn::Ecn;
use connlib_wire::offload::VirtioHeader;

use super::{BOTH, PROCESSES, configure, socket_in, train};

/// The address of the device, and one that is routed to it, of each family.
const PAIRS: [(&str, &str); 2] = [("100.64.0.1", "100.64.0.2"), ("fd00::1", "fd00::2")];
const NAME: &str = "tun-test";
const UDP: u8 = 17;
const TCP: u8 = 6;

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn packets_pass_through_a_tun_device_in_both_directions() {
    for create in [TunDevice::create, TunDevice::create_plain] {
        let mut world = World::new(create);

        for (host, peer) in PAIRS {
            let to = SocketAddr::new(peer.parse().unwrap(), 2000);
            let socket = world.socket(host);

            socket.send_to(b"ping", to).unwrap();
            let (header, mut packet) = world.read(UDP);
            assert_eq!(header.gso_kind(), VirtioHeader::GSO_NONE);
            assert!(packet.ends_with(b"ping"));

            turn_around(&mut packet);
            world.tun.write(header, &[IoSlice::new(&packet)]).unwrap();
            let mut answer = [0; 16];
            let (len, peer) = socket.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..len], peer), (&b"ping"[..], to));
        }

        let refused = world
            .tun
            .write(VirtioHeader::default(), &[IoSlice::new(&[0; 20])])
            .unwrap_err();
        assert_eq!(
            refused.kind(),
            io::ErrorKind::InvalidInput,
            "not an IP packet"
        );
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_train_into_the_device_is_read_as_one_super_packet() {
    let mut world = World::new(TunDevice::create);
    if !world.tun.joins().udp {
        return; // Linux before 6.2
    }
    for (host, peer) in PAIRS {
        let mut socket = socket_in(&world.namespace, host);
        let payload = pattern(20 * 1000 + 7);
        let to = SocketAddr::new(peer.parse().unwrap(), 9);

        let train = train(to, Ecn::Ect0, 1000, &payload);
        assert_eq!(socket.send(&[Outgoing::new(&train, 0)]).unwrap(), 21);

        let (header, packet) = world.read(UDP);
        assert_eq!(header.gso_kind(), VirtioHeader::GSO_UDP_L4);
        assert_eq!(header.gso_size, 1000);
        assert_eq!(header.flags & VirtioHeader::NEEDS_CSUM, 1);
        assert!(packet.ends_with(&payload), "all datagrams came at once");
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_train_into_a_plain_device_is_read_packet_by_packet() {
    let mut world = World::new(TunDevice::create_plain);
    assert_eq!(world.tun.joins(), Joins::default());
    let mut socket = socket_in(&world.namespace, "100.64.0.1");

    let train = train(
        "100.64.0.2:9".parse().unwrap(),
        Ecn::NotEct,
        1000,
        &[7; 2500],
    );
    socket.send(&[Outgoing::new(&train, 0)]).unwrap();

    for len in [1000, 1000, 500] {
        let (header, packet) = world.read(UDP);
        assert_eq!(header, VirtioHeader::default());
        assert_eq!(packet.len(), 20 + 8 + len);
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_run_of_datagrams_that_is_written_arrives_as_datagrams() {
    let mut world = World::new(TunDevice::create);
    if !world.tun.joins().udp {
        return; // Linux before 6.2
    }
    for (host, peer) in PAIRS {
        let socket = world.socket(host);
        let payload = pattern(3 * 1000 + 17);
        let to = socket.local_addr().unwrap();
        let mut head = udp_head(peer.parse().unwrap(), to, payload.len());
        let header = header_of(&mut head, 1000, payload.len());

        let mut parts = vec![IoSlice::new(&head)];
        parts.extend(payload.chunks(1000).map(IoSlice::new));
        world.tun.write(header, &parts).unwrap();

        for expected in payload.chunks(1000) {
            let mut datagram = [0; 2000];
            let len = socket.recv(&mut datagram).unwrap();
            assert_eq!(&datagram[..len], expected);
        }
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_write_takes_as_many_parts_as_it_says() {
    let mut world = World::new(TunDevice::create);
    let socket = world.socket("100.64.0.1");
    let payload = pattern(MAX_PARTS - 1);
    let to = socket.local_addr().unwrap();
    let mut head = udp_head("100.64.0.2".parse().unwrap(), to, payload.len());
    let header = VirtioHeader {
        gso_type: VirtioHeader::GSO_NONE,
        gso_size: 0,
        ..header_of(&mut head, 1, payload.len())
    };

    let mut parts = vec![IoSlice::new(&head)];
    parts.extend(payload.chunks(1).map(IoSlice::new));
    assert_eq!(parts.len(), MAX_PARTS);
    world.tun.write(header, &parts).unwrap();
    let mut datagram = [0; 2000];
    let len = socket.recv(&mut datagram).unwrap();
    assert_eq!(datagram[..len], payload);

    parts.push(IoSlice::new(b"x"));
    let refused = world.tun.write(header, &parts).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_stream_comes_and_goes_in_super_packets() {
    for (host, peer) in PAIRS {
        let mut world = World::new(TunDevice::create);
        assert!(world.tun.joins().tcp);
        let (mut stream, far) = world.connect(peer);

        let download = pattern(3 * 1000 + 17);
        let mut head = far.head(PSH | ACK, &[], download.len());
        let header = header_of(&mut head, 1000, download.len());
        let parts = [IoSlice::new(&head), IoSlice::new(&download)];
        world.tun.write(header, &parts).unwrap();
        let mut received = vec![0; download.len()];
        stream.read_exact(&mut received).unwrap();
        assert_eq!(received, download);

        let upload = pattern(8 * 1000);
        stream.write_all(&upload).unwrap();
        let mut sent = Vec::new();
        let mut sizes = Vec::new();
        while sent.len() < upload.len() {
            let (header, packet) = world.read(TCP);
            let payload = &packet[far.headers()..];
            if payload.len() > 1000 {
                let kind = if host.contains(':') {
                    VirtioHeader::GSO_TCPV6
                } else {
                    VirtioHeader::GSO_TCPV4
                };
                assert_eq!(header.gso_kind(), kind);
                assert_eq!(header.gso_size, 1000, "the size that was agreed on");
            }
            sent.extend_from_slice(payload);
            sizes.extend((!payload.is_empty()).then_some(payload.len()));
        }
        assert_eq!(sent, upload);
        assert!(sizes.len() < 8, "the stream comes joined: {sizes:?}");
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn runs_are_refused_by_a_device_that_takes_none() {
    let mut world = World::new(TunDevice::create_plain);
    let mut head = udp_head(
        "100.64.0.2".parse().unwrap(),
        "100.64.0.1:9".parse().unwrap(),
        20,
    );
    let header = header_of(&mut head, 10, 20);
    let unfinished = VirtioHeader {
        gso_type: VirtioHeader::GSO_NONE,
        gso_size: 0,
        ..header
    };

    for header in [header, unfinished] {
        let parts = [IoSlice::new(&head), IoSlice::new(&[0; 20])];
        let refused = world.tun.write(header, &parts).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn no_super_packet_has_more_segments_than_the_queue_allows() {
    let mut world = World::new(TunDevice::create);
    configure(&world.namespace, async |netlink| {
        let limits = QueueLimits {
            packets: 100,
            gso_bytes: 61_000,
            gso_segments: 49,
        };
        netlink.set_queue(NAME, limits).await.unwrap();
        // Limits that no kernel takes are no failure.
        let absurd = QueueLimits {
            packets: 100,
            gso_bytes: u32::MAX,
            gso_segments: u32::MAX,
        };
        netlink.set_queue(NAME, absurd).await.unwrap();
        let missing = netlink.set_queue("gone", limits).await;
        assert!(matches!(missing, Err(NetlinkError::NoSuchInterface { .. })));
    });
    let mut socket = socket_in(&world.namespace, "100.64.0.1");

    for count in [49, 60] {
        let payload = pattern(count * 100);
        let train = train("100.64.0.2:9".parse().unwrap(), Ecn::NotEct, 100, &payload);
        assert_eq!(socket.send(&[Outgoing::new(&train, 0)]).unwrap(), count);

        let mut bytes = Vec::new();
        while bytes.len() < payload.len() {
            let (header, packet) = world.read(UDP);
            let segments = match header.gso_size {
                0 => 1,
                size => (packet.len() - 28).div_ceil(usize::from(size)),
            };
            assert!(segments <= 49, "{segments}");
            bytes.extend_from_slice(&packet[28..]);
        }
        assert_eq!(bytes, payload);
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_device_that_is_down_takes_nothing() {
    let namespace = Namespace::create().unwrap();
    let mut tun = run_in(&namespace, || TunDevice::create(NAME))
        .unwrap()
        .unwrap();

    let packet = udp_head(
        "100.64.0.2".parse().unwrap(),
        "100.64.0.1:9".parse().unwrap(),
        0,
    );
    let refused = tun
        .write(VirtioHeader::default(), &[IoSlice::new(&packet)])
        .unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EIO));

    configure(&namespace, async |netlink| {
        netlink.delete_link(NAME).await.unwrap()
    });
    let gone = tun.read(&mut [0; 100]).unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::EBADFD));
    let gone = tun
        .write(VirtioHeader::default(), &[IoSlice::new(&packet)])
        .unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::EBADFD));
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_held_name_is_busy_and_a_dropped_one_is_free() {
    let _alone = PROCESSES.lock().unwrap_or_else(PoisonError::into_inner);
    let namespace = Namespace::create().unwrap();
    let create = || run_in(&namespace, || TunDevice::create(NAME)).unwrap();

    let first = create().unwrap();
    assert_eq!(first.name(), NAME);
    assert!(matches!(create(), Err(TunError::Busy { .. })));
    drop(first);
    create().unwrap();

    let loopback = run_in(&namespace, || TunDevice::create("lo")).unwrap();
    assert!(matches!(loopback, Err(TunError::NameTaken { .. })));
}

/// A namespace with a device that has [`PAIRS`]' addresses, at an MTU of 1280.
struct World {
    namespace: Namespace,
    tun: TunDevice,
    poller: Poller,
}

impl World {
    fn new(create: fn(&str) -> Result<TunDevice, TunError>) -> Self {
        let namespace = Namespace::create().unwrap();
        let tun = run_in(&namespace, || create(NAME)).unwrap().unwrap();
        configure(&namespace, async |netlink| {
            netlink.set_mtu(NAME, 1280).await.unwrap();
            netlink.set_tx_queue_len(NAME, 100).await.unwrap();
            let [(v4, _), (v6, _)] = PAIRS;
            let (v4, v6) = (v4.parse().unwrap(), v6.parse().unwrap());
            let set = netlink.set_addresses(NAME, Some(v4), Some(v6)).await;
            assert_eq!(set.unwrap(), BOTH);
            netlink.set_up(NAME).await.unwrap();
            for dst in ["100.64.0.0/16", "fd00::/64"] {
                let route = RouteSpec::by_dev(dst.parse().unwrap(), NAME);
                netlink.add_route(&route).await.unwrap();
            }
        });
        let poller = Poller::new().unwrap();
        poller.register(&tun, Token(0), Interest::Read).unwrap();

        Self {
            namespace,
            tun,
            poller,
        }
    }

    fn socket(&self, host: &str) -> StdUdpSocket {
        let from = SocketAddr::new(host.parse().unwrap(), 0);
        let socket = run_in(&self.namespace, || StdUdpSocket::bind(from))
            .unwrap()
            .unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();

        socket
    }

    /// Reads until a packet of that protocol comes; the kernel also sends some of its own.
    fn read(&mut self, protocol: u8) -> (VirtioHeader, Vec<u8>) {
        let mut buf = vec![0; 65_535];
        loop {
            match self.tun.read(&mut buf) {
                Ok((header, len)) => {
                    if self::protocol(&buf) == protocol {
                        buf.truncate(len);
                        return (header, buf);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut events = Vec::new();
                    self.poller.wait(Some(PATIENCE), &mut events).unwrap();
                    assert!(!events.is_empty(), "no packet came");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Connects a stream from `host` to `peer`, whose part is played here. Segments have 1000 bytes.
    fn connect(&mut self, peer: &str) -> (TcpStream, FarEnd) {
        let namespace = run_in(&self.namespace, Namespace::of_this_thread)
            .unwrap()
            .unwrap();
        let to = SocketAddr::new(peer.parse().unwrap(), 80);
        let stream = std::thread::spawn(move || run_in(&namespace, || TcpStream::connect(to)));

        let (_, syn) = self.read(TCP);
        let (addresses, len, start) = layout(&syn);
        let host = &syn[addresses..addresses + len];
        let host: IpAddr = match <[u8; 4]>::try_from(host) {
            Ok(v4) => v4.into(),
            Err(_) => <[u8; 16]>::try_from(host).unwrap().into(),
        };
        let port = u16::from_be_bytes([syn[start], syn[start + 1]]);
        let theirs = u32::from_be_bytes(syn[start + 4..start + 8].try_into().unwrap());
        let mut far = FarEnd {
            addr: to,
            host: SocketAddr::new(host, port),
            seq: 7_000,
            ack: theirs.wrapping_add(1),
        };

        let mut answer = far.head(SYN | ACK, &[2, 4, 0x03, 0xe8], 0);
        let header = header_of(&mut answer, 0, 0);
        self.tun.write(header, &[IoSlice::new(&answer)]).unwrap();
        far.seq += 1;
        let stream = stream.join().unwrap().unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();

        (stream, far)
    }
}

/// The other end of a stream.
struct FarEnd {
    addr: SocketAddr,
    host: SocketAddr,
    seq: u32,
    ack: u32,
}

impl FarEnd {
    /// The length of the headers that the host sends: without options.
    fn headers(&self) -> usize {
        20 + if self.host.is_ipv4() { 20 } else { 40 }
    }

    /// The headers of a segment, or of a run.
    fn head(&self, flags: u8, options: &[u8], payload: usize) -> Vec<u8> {
        let len = 20 + options.len();
        let mut head = ip_head(TCP, self.addr.ip(), self.host.ip(), len + payload);
        head.extend(self.addr.port().to_be_bytes());
        head.extend(self.host.port().to_be_bytes());
        head.extend(self.seq.to_be_bytes());
        head.extend(self.ack.to_be_bytes());
        head.extend([(len * 4) as u8, flags, 0xff, 0xff, 0, 0, 0, 0]);
        head.extend(options);

        head
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

fn udp_head(from: IpAddr, to: SocketAddr, payload: usize) -> Vec<u8> {
    let mut head = ip_head(UDP, from, to.ip(), 8 + payload);
    head.extend(1000_u16.to_be_bytes());
    head.extend(to.port().to_be_bytes());
    head.extend(((8 + payload) as u16).to_be_bytes());
    head.extend([0, 0]);

    head
}

fn ip_head(protocol: u8, from: IpAddr, to: IpAddr, payload: usize) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let len = ((20 + payload) as u16).to_be_bytes();
            let mut head = vec![0x45, 0, len[0], len[1], 0, 1, 0x40, 0, 64, protocol, 0, 0];
            head.extend(from.octets());
            head.extend(to.octets());
            let checksum = !folded(sum(&head));
            head[10..12].copy_from_slice(&checksum.to_be_bytes());
            head
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let len = (payload as u16).to_be_bytes();
            let mut head = vec![0x60, 0, 0, 0, len[0], len[1], protocol, 64];
            head.extend(from.octets());
            head.extend(to.octets());
            head
        }
        _ => panic!("two families"),
    }
}

/// Begins the checksum behind the IP header of `head`, and says how the kernel is to go on from there.
fn header_of(head: &mut [u8], gso_size: u16, payload: usize) -> VirtioHeader {
    let (addresses, len, start) = layout(head);
    let protocol = protocol(head);
    let pseudo = sum(&head[addresses..addresses + 2 * len])
        + u32::from(protocol)
        + (head.len() - start + payload) as u32;
    let csum_offset = if protocol == TCP { 16 } else { 6 };
    let field = start + csum_offset;
    head[field..field + 2].copy_from_slice(&folded(pseudo).to_be_bytes());

    VirtioHeader {
        flags: VirtioHeader::NEEDS_CSUM,
        gso_type: match (gso_size, protocol, len) {
            (0, _, _) => VirtioHeader::GSO_NONE,
            (_, UDP, _) => VirtioHeader::GSO_UDP_L4,
            (_, _, 4) => VirtioHeader::GSO_TCPV4,
            _ => VirtioHeader::GSO_TCPV6,
        },
        hdr_len: head.len() as u16,
        gso_size,
        csum_start: start as u16,
        csum_offset: csum_offset as u16,
    }
}

/// Where the addresses of a packet begin, how long each is, and where its payload begins.
fn layout(packet: &[u8]) -> (usize, usize, usize) {
    if packet[0] >> 4 == 4 {
        (12, 4, 20)
    } else {
        (8, 16, 40)
    }
}

fn protocol(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 {
        packet[9]
    } else {
        packet[6]
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);

    words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum()
}

fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);

    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Exchanges sender and receiver, which leaves all checksums right.
fn turn_around(packet: &mut [u8]) {
    let (addresses, len, ports) = layout(packet);
    let (src, dst) = packet[addresses..addresses + 2 * len].split_at_mut(len);
    src.swap_with_slice(dst);
    let (src, dst) = packet[ports..ports + 4].split_at_mut(2);
    src.swap_with_slice(dst);
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}
