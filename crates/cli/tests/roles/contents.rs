//! A relay carries whatever UDP does.

use std::net::UdpSocket;
use std::time::Duration;

use crate::lone_relay::{Client, Relay};

#[test]
fn a_relay_carries_datagrams_without_contents() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path(), &[]);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut client = Client::new(relay.addr);
    assert_eq!(client.allocate(), Ok(()));
    assert_eq!(client.bind(peer.local_addr().unwrap()), Ok(()));

    for contents in [&b""[..], b"some", b""] {
        client.say(contents);
        let mut datagram = [1; 8];
        let (len, from) = peer.recv_from(&mut datagram).unwrap();
        assert_eq!(&datagram[..len], contents);

        peer.send_to(contents, from).unwrap();
        assert_eq!(client.hear(), contents);
    }
    assert!(relay.running.terminate().success());
}
