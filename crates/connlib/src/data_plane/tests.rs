use std::net::UdpSocket;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_relay::{Config, Credentials, LoopbackPeers, PrivatePeers, Server};
use connlib_tunnel::Settings;
use connlib_tunnel::client::Client;
use connlib_wire::buffer::Pool;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{Builder, Class, Message, Method, TransactionId};

use super::*;
use crate::event_loop::{Command, Output};

const LIMIT: Duration = Duration::from_secs(10);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

fn node() -> (NodeHandle<Client>, Outputs<Client>) {
    let clock = Clock::new();
    let settings = Settings { unix: clock.unix() };
    let client = Client::new(clock.now(), [7; 32], settings);
    let sockets = Sockets {
        port: 0,
        mark: None,
    };

    spawn_node("client data", client, clock, sockets).unwrap()
}

#[test]
fn an_order_wakes_the_thread_and_its_answer_comes_back() {
    runtime().block_on(async {
        let (node, mut outputs) = node();
        for _ in 0..300 {
            node.order(Order::Command(Command::Status)).await.unwrap();
            let output = tokio::time::timeout(LIMIT, outputs.recv()).await.unwrap();
            assert!(matches!(output, Some(Output::Status(..))));
        }
        node.order(Order::Stop).await.unwrap();
        assert!(outputs.recv().await.is_none());
        node.join().unwrap();
    });
}

#[test]
fn answers_that_nobody_takes_for_a_while_are_kept() {
    runtime().block_on(async {
        let (node, mut outputs) = node();
        let asks = async {
            for _ in 0..600 {
                node.order(Order::Command(Command::Status)).await.unwrap();
            }
        };
        let takes = async {
            for _ in 0..600 {
                let output = tokio::time::timeout(LIMIT, outputs.recv()).await.unwrap();
                assert!(matches!(output, Some(Output::Status(..))));
            }
        };
        tokio::join!(asks, takes);
    });
}

#[test]
fn new_sockets_start_everything_over() {
    runtime().block_on(async {
        let (node, mut outputs) = node();
        node.order(Order::Rebind).await.unwrap();
        let output = tokio::time::timeout(LIMIT, outputs.recv()).await.unwrap();
        assert!(matches!(output, Some(Output::Event(_))), "the key changed");
    });
}

#[test]
fn a_node_that_nobody_holds_ends() {
    let (node, outputs) = node();
    drop(outputs);
    node.join().unwrap();
}

#[test]
fn a_relay_answers_on_its_listen_port_and_stops() {
    let port = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = Config {
        public_v4: Some([127, 0, 0, 1].into()),
        public_v6: None,
        listen_port: port,
        ports: 49_152..=65_535,
        credentials: Credentials::Stamped(Secret::from("secret")),
        loopback_peers: LoopbackPeers::Allowed,
        private_peers: PrivatePeers::Allowed,
    };
    let pool = Pool::new(2_048, 4);
    let server = Server::new(config, [7; 32], pool.clone());
    let sockets = RelaySockets {
        listen_v4: Some(([127, 0, 0, 1], port).into()),
        listen_v6: None,
    };
    let relay = spawn_relay(vec![server], Clock::new(), sockets).unwrap();

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let id = TransactionId([3; 12]);
    let request = Builder::new(pool.take(0), Method::Binding, Class::Request, id)
        .finish()
        .unwrap();
    socket.send_to(&request, ("127.0.0.1", port)).unwrap();
    let mut answer = [0; 512];
    let len = socket.recv(&mut answer).unwrap();
    let answer = Message::parse(&answer[..len]).unwrap();
    assert_eq!(answer.mapped_address(), Some(socket.local_addr().unwrap()));

    relay.stop();
    relay.join().unwrap();
}
