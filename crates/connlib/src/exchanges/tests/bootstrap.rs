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
async fn without_servers_the_system_is_asked() {
    let rig = Rig::new();
    let ips = resolve(&rig, "localhost").await.unwrap();

    assert!(ips.iter().all(IpAddr::is_loopback), "{ips:?}");
}

/// A name server of the system's that knows one name.
pub(super) struct Resolver {
    pub(super) addr: SocketAddr,
    asked: Arc<AtomicU32>,
}

impl Resolver {
    pub(super) async fn new(name: &'static str, ips: &[&str]) -> Self {
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

    fn asked(&self) -> u32 {
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
