//! A client and a gateway of ours with a portal that knows the older generation of the protocol alone.

use std::io::{self, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use connlib_os::namespace::run_in;

use crate::network::Network;
use crate::probe::first_reply;
use crate::world::{Plan, TOPOLOGY, World};

/// Where the portal seems to be: beside the relay, whose network is the third.
const FRONT: &str = "198.18.3.10:3128";
const THROUGH_FRONT: &str = "--proxy=http://198.18.3.10:3128";

/// The same without access.
const WITHOUT_POLICY: &str = r#"[[site]]
name = "office"

[[actor]]
name = "alice"
groups = ["staff"]

[[resource]]
name = "office lan"
address = "10.20.0.0/16"
sites = ["office"]
"#;

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_portal_that_knows_the_older_generation_alone_gives_access_and_takes_it_back() {
    let plan = Plan {
        client: &[THROUGH_FRONT],
        gateway: &["--masquerade=off", THROUGH_FRONT],
        ..Plan::default()
    };
    let mut asked = None;
    let mut world = World::planned(plan, &["relay"], &["gateway"], |network| {
        network.block("client", "portal");
        network.block("gateway", "portal");
        asked = Some(begin(network));
    });

    world.connect();
    world.apply(WITHOUT_POLICY);
    let is_gone = |world: &World| {
        let resources = world.status("client")["resources"].as_array()?.is_empty();
        resources.then_some(())
    };
    let gone = world.wait_for(Duration::from_secs(5), is_gone);
    assert!(gone.is_some(), "{}", world.status("client"));
    let client = world.network.namespace("client");
    assert_eq!(first_reply(client, Duration::from_secs(1)), None);
    world.apply(TOPOLOGY);
    // A socket that is opened before the route is back keeps the address that it had without the tunnel.
    let reply = |world: &World| {
        let client = world.network.namespace("client");
        first_reply(client, Duration::from_millis(500))
    };
    let back = world.wait_for(Duration::from_secs(10), reply);
    assert!(back.is_some(), "{}", world.status("client"));

    for place in ["client", "gateway"] {
        assert_eq!(world.status(place)["portal"], "joined");
        world.stop(place);
    }
    world.assert_calm();
    let asked: Vec<String> = asked.unwrap().try_iter().collect();
    for role in ["client", "gateway"] {
        let paths: Vec<&str> = (asked.iter())
            .filter_map(|path| path.strip_prefix(&format!("/{role}/")))
            .map(|path| path.split('=').next().unwrap())
            .collect();
        // The newer one first, without a token that would stand in a log; then the older one with it.
        assert_eq!(paths, ["v2/websocket?external_id", "websocket?token"]);
    }
}

/// Leads to the portal, but not to the paths of the newer generation. Returns the paths that were asked for.
fn begin(network: &Network) -> mpsc::Receiver<String> {
    let (tell, asked) = mpsc::channel();
    // Threads stay in the namespace in which they are begun.
    let begun = run_in(network.namespace("relay"), || {
        let listener = TcpListener::bind(FRONT).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let tell = tell.clone();
                // It ends with the connection: what went wrong with it shows on the other side.
                thread::spawn(move || pass(stream?, &tell));
            }
        });
    });
    begun.unwrap();

    asked
}

fn pass(stream: TcpStream, tell: &mpsc::Sender<String>) -> io::Result<()> {
    let mut from_peer = BufReader::new(stream.try_clone()?);
    let mut to_peer = stream;
    let connect = head(&mut from_peer)?;
    let target = connect.split(' ').nth(1).unwrap_or_default();
    to_peer.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let request = head(&mut from_peer)?;
    let path = request.split(' ').nth(1).unwrap_or_default();
    // The test may have ended.
    let _ = tell.send(path.to_owned());
    if path.contains("/v2/") {
        return to_peer.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    }

    let mut to_portal = TcpStream::connect(target)?;
    to_portal.write_all(request.as_bytes())?;
    let mut from_portal = to_portal.try_clone()?;
    thread::spawn(move || {
        io::copy(&mut from_portal, &mut to_peer)?;
        to_peer.shutdown(Shutdown::Write)
    });
    io::copy(&mut from_peer, &mut to_portal)?;

    to_portal.shutdown(Shutdown::Write)
}

/// A request up to its empty line.
fn head(from: &mut impl io::BufRead) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }

    Ok(head)
}
