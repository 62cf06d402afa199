//! The addresses of name servers that have names.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

const HOST: &str = "dns.test";

#[tokio::test]
async fn what_all_servers_say_is_put_together() {
    let first = Resolver::new(HOST, &["192.0.2.1", "2001:db8::1"]).await;
    let second = Resolver::new(HOST, &["192.0.2.1", "192.0.2.2"]).await;
    let rig = resolving(&[first.addr, second.addr]);

    let ips = resolve(&rig, HOST).await.unwrap();
    assert_eq!(ips, ips_of(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]));
    assert_eq!((first.asked(), second.asked()), (2, 2));
}

#[tokio::test]
async fn a_dead_server_does_not_cost_its_time() {
    let first = Resolver::new(HOST, &["192.0.2.1"]).await;
    let silent = UdpSocket::bind(ANY).await.unwrap();
    let rig = resolving(&[silent.local_addr().unwrap(), first.addr]);
    let before = Instant::now();

    assert_eq!(resolve(&rig, HOST).await.unwrap(), ips_of(&["192.0.2.1"]));
    assert!(before.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_server_that_only_speaks_tcp_is_asked_by_tcp() {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let len = stream.read_u16().await.unwrap();
            let mut asked = vec![0; len.into()];
            stream.read_exact(&mut asked).await.unwrap();
            let answer = records(&asked, HOST, &ips_of(&["192.0.2.1"]));
            // An empty frame first.
            let len = u16::try_from(answer.len()).unwrap();
            stream.write_u16(0).await.unwrap();
            stream.write_u16(len).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });

    let rig = resolving(&[addr]);
    assert_eq!(resolve(&rig, HOST).await.unwrap(), ips_of(&["192.0.2.1"]));
}

#[tokio::test]
async fn a_name_that_all_deny_is_not_asked_for_again_by_tcp() {
    let resolver = Resolver::new("other.test", &["192.0.2.1"]).await;
    let listener = TcpListener::bind(resolver.addr).await.unwrap();
    let rig = resolving(&[resolver.addr]);

    let error = resolve(&rig, HOST).await.unwrap_err();
    assert_failed(&Err(error.clone()), HOST);
    assert_failed(&Err(error), "no such name");
    assert!(timeout(SHORT, listener.accept()).await.is_err());
}

#[tokio::test]
async fn servers_that_are_of_no_help_are_named() {
    let resolver = Resolver::refusing().await;
    let rig = resolving(&[resolver.addr]);

    let error = Err(resolve(&rig, HOST).await.unwrap_err());
    assert_failed(&error, HOST);
    assert_failed(&error, &resolver.addr.to_string());
}

#[tokio::test]
async fn silence_is_waited_out_by_both_carriers() {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let silent = UdpSocket::bind(addr).await.unwrap();
    let rig = resolving(&[addr]);
    let carriers = Arc::clone(&rig.exchanges.carriers);
    let resolving = tokio::spawn(async move { carriers.network.bootstrap.resolve(HOST).await });
    silent.recv(&mut [0; 512]).await.unwrap();
    pass(Duration::from_secs(2)).await;
    let _stuck = listener.accept().await.unwrap();
    pass(Duration::from_secs(2)).await;

    assert_failed(&resolving.await.unwrap().map(|_| vec![]), "in time");
}

#[tokio::test]
async fn addresses_are_kept_for_their_time_but_half_a_minute_at_least() {
    let resolver = Resolver::new(HOST, &["192.0.2.1"]).await;
    let rig = resolving(&[resolver.addr]);
    for _ in 0..3 {
        resolve(&rig, HOST).await.unwrap();
    }
    assert_eq!(resolver.asked(), 2, "its time is 0");
    pass(Duration::from_secs(29)).await;
    resolve(&rig, HOST).await.unwrap();
    assert_eq!(resolver.asked(), 2);
    pass(Duration::from_secs(1)).await;
    resolve(&rig, HOST).await.unwrap();
    assert_eq!(resolver.asked(), 4);
}

#[tokio::test]
async fn addresses_are_forgotten_with_the_network_and_with_the_servers() {
    let resolver = Resolver::new(HOST, &["192.0.2.1"]).await;
    let other = Resolver::new(HOST, &["192.0.2.2"]).await;
    let mut rig = resolving(&[resolver.addr]);
    resolve(&rig, HOST).await.unwrap();
    rig.exchanges.reset();
    resolve(&rig, HOST).await.unwrap();
    assert_eq!(resolver.asked(), 4);

    rig.exchanges.set_bootstrap(&[resolver.addr]);
    resolve(&rig, HOST).await.unwrap();
    assert_eq!(resolver.asked(), 4, "nothing is new");
    rig.exchanges.set_bootstrap(&[other.addr]);
    assert_eq!(resolve(&rig, HOST).await.unwrap(), ips_of(&["192.0.2.2"]));
}

#[tokio::test]
async fn of_many_addresses_a_few_of_each_version_are_kept() {
    let ips: Vec<_> = (0..40)
        .flat_map(|n| [format!("192.0.2.{n}"), format!("2001:db8::{n}")])
        .collect();
    let ips: Vec<_> = ips.iter().map(String::as_str).collect();
    let resolver = Resolver::new(HOST, &ips).await;
    let rig = resolving(&[resolver.addr]);

    let ips = resolve(&rig, HOST).await.unwrap();
    let v4 = ips.iter().filter(|ip| ip.is_ipv4()).count();
    assert_eq!((v4, ips.len()), (8, 16));
}

#[tokio::test]
async fn our_own_addresses_are_not_asked() {
    let ours = [
        "100.100.111.7:53",
        "[fd00:2021:1111:8000:100:100:111:ff]:53",
    ];
    let ours = ours.map(|addr| addr.parse().unwrap());
    let rig = resolving(&ours);
    assert!(!rig.exchanges.bootstrap().has_servers());

    let others = [
        "100.100.112.7:53",
        "[fd00:2021:1111:8000:100:100:111:100]:53",
    ];
    for other in others {
        let rig = resolving(&[ours[0], other.parse().unwrap()]);
        assert!(rig.exchanges.bootstrap().has_servers(), "{other}");
    }
}

#[tokio::test]
async fn when_others_are_to_be_asked_they_are_asked_at_once() {
    let silent = UdpSocket::bind(ANY).await.unwrap();
    let resolver = Resolver::new(HOST, &["192.0.2.1"]).await;
    let mut rig = resolving(&[silent.local_addr().unwrap()]);
    let bootstrap = rig.exchanges.bootstrap();
    let resolving = tokio::spawn(async move { bootstrap.resolve(HOST).await });
    silent.recv(&mut [0; 512]).await.unwrap();

    let before = Instant::now();
    rig.exchanges.set_bootstrap(&[resolver.addr]);
    let ips = resolving.await.unwrap().unwrap();
    assert_eq!(ips, ips_of(&["192.0.2.1"]));
    assert!(before.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_was_asked_in_another_network_is_not_kept() {
    let server = UdpSocket::bind(ANY).await.unwrap();
    let mut rig = resolving(&[server.local_addr().unwrap()]);
    let bootstrap = rig.exchanges.bootstrap();
    let resolving = tokio::spawn(async move { bootstrap.resolve(HOST).await });
    let asked = async || {
        let mut buffer = [0; 512];
        let asked = timeout(LONG, server.recv_from(&mut buffer)).await;
        let (len, from) = asked.unwrap().unwrap();
        (buffer[..len].to_vec(), from)
    };
    let answer = async |(asked, from): (Vec<u8>, _), ip| {
        let answer = records(&asked, HOST, &ips_of(&[ip]));
        server.send_to(&answer, from).await.unwrap();
    };
    let old = [asked().await, asked().await];
    rig.exchanges.reset();
    for asked in old {
        answer(asked, "192.0.2.1").await;
    }
    for _ in 0..2 {
        answer(asked().await, "192.0.2.2").await;
    }

    assert_eq!(resolving.await.unwrap().unwrap(), ips_of(&["192.0.2.2"]));
    assert_eq!(resolve(&rig, HOST).await.unwrap(), ips_of(&["192.0.2.2"]));
}

#[tokio::test]
async fn a_host_that_can_not_be_reached_is_looked_for_anew() {
    let resolver = Resolver::new(HOST, &["127.0.0.1"]).await;
    let mut rig = resolving(&[resolver.addr]);
    let port = {
        let listener = TcpListener::bind(ANY).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let server = Server::Tls {
        host: HOST.into(),
        port,
    };
    for asked in [2, 4] {
        let outcome = rig.ask(&server, Carrier::Tcp, "a.test").await;
        assert_unreachable(&outcome, "127.0.0.1");
        assert_eq!(resolver.asked(), asked);
    }
}

#[tokio::test]
async fn without_servers_the_system_is_asked() {
    let rig = Rig::new();
    let ips = resolve(&rig, "localhost").await.unwrap();

    assert!(ips.iter().all(IpAddr::is_loopback), "{ips:?}");
}

/// A name server of the system's that knows one name.
pub(crate) struct Resolver {
    pub(crate) addr: SocketAddr,
    asked: Arc<AtomicU32>,
}

impl Resolver {
    pub(crate) async fn new(name: &'static str, ips: &[&str]) -> Self {
        let ips = ips_of(ips);

        Self::answering(move |asked| records(asked, name, &ips)).await
    }

    async fn refusing() -> Self {
        Self::answering(|asked| {
            let query = Query::parse(asked).unwrap();
            respond(&query, Rcode::REFUSED, 0, &[], None)
        })
        .await
    }

    async fn answering(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Self {
        let socket = UdpSocket::bind(ANY).await.unwrap();
        let addr = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 2_048];
            loop {
                let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let _ = socket.send_to(&answer(&buffer[..len]), from).await;
            }
        });

        Self { addr, asked }
    }

    pub(crate) fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

fn records(asked: &[u8], name: &str, ips: &[IpAddr]) -> Vec<u8> {
    let query = Query::parse(asked).unwrap();
    if query.name.as_str() != name {
        return respond(&query, Rcode::NXDOMAIN, 0, &[], None);
    }
    let records: Vec<_> = ips
        .iter()
        .filter_map(|&ip| match ip {
            IpAddr::V4(ip) => (query.record_type == RecordType::A).then_some(Data::A(ip)),
            IpAddr::V6(ip) => (query.record_type == RecordType::AAAA).then_some(Data::Aaaa(ip)),
        })
        .collect();

    respond(&query, Rcode::NOERROR, 0, &records, None)
}

fn resolving(servers: &[SocketAddr]) -> Rig {
    let mut rig = Rig::new();
    rig.exchanges.set_bootstrap(servers);

    rig
}

async fn resolve(rig: &Rig, host: &str) -> Result<Vec<IpAddr>, ExchangeError> {
    rig.exchanges.carriers.network.bootstrap.resolve(host).await
}

fn ips_of(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
