//! A program with a client inside, which watches what that can reach.

use std::time::Duration;

use connlib::client::{Generation, Interface, PortalState, Refusal, ResourceView};
use connlib::{Client, Secret, Watch};
use connlib_os::namespace::run_in;

use crate::probe::first_reply;
use crate::world::World;

/// Nothing that is waited for takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

const CHANGED: &str = r#"
site = [{ name = "office" }]
actor = [{ name = "alice", groups = ["staff"] }]
resource = [
    { name = "printers", address = "10.30.0.0/16", sites = ["office"] },
    { name = "wiki", address = "wiki.corp.test", sites = ["office"] },
]
policy = [
    { group = "staff", resource = "printers" },
    { group = "staff", resource = "wiki" },
]
"#;

/// Waits, but not for ever.
fn wait<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();

    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, what).await })
        .unwrap()
}

/// Waits until what is watched is as it should be.
fn wait_until<T: Clone>(watch: &mut Watch<T>, is_so: impl Fn(&T) -> bool) -> T {
    wait(async {
        let mut value = watch.get();
        while !is_so(&value) {
            value = watch.next().await.unwrap();
        }
        value
    })
}

fn names(resources: &[ResourceView]) -> Vec<&str> {
    resources
        .iter()
        .map(|resource| resource.name.as_str())
        .collect()
}

fn leads_in(interface: Option<&Interface>, network: &str) -> bool {
    let network = network.parse().unwrap();

    interface.is_some_and(|interface| interface.routes.contains(&network))
}

/// A world whose client is in this process.
fn embedded() -> (World, Client) {
    let mut world = World::new(&["relay"], &["gateway"]);
    world.stop("client");
    let token = std::fs::read_to_string(world.file("client.token")).unwrap();
    let builder = Client::builder()
        .api_url(format!("ws://{}/", world.portal()))
        .token(Secret::from(token.trim().to_owned()))
        .socket(world.file("embedded.sock"))
        .id("embedded");
    let start = || builder.start().unwrap();
    let client = run_in(world.network.namespace("client"), start).unwrap();

    (world, client)
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn whoever_embeds_a_client_sees_what_it_reaches_and_by_which_routes_as_that_changes() {
    let (mut world, client) = embedded();
    let (mut resources, mut interface) = (client.resources(), client.interface());

    let lan = wait_until(&mut resources, |now| names(now) == ["office lan"]);
    assert_eq!(lan[0].address.as_deref(), Some("10.20.0.0/16"));
    let first = wait_until(&mut interface, |now| leads_in(now.as_ref(), "10.20.0.0/16"));

    world.apply(CHANGED);
    wait_until(&mut resources, |now| names(now) == ["printers", "wiki"]);
    let second = wait_until(&mut interface, |now| leads_in(now.as_ref(), "10.30.0.0/16"));
    assert!(!leads_in(second.as_ref(), "10.20.0.0/16"));
    assert_eq!(first.unwrap().ipv4, second.unwrap().ipv4);

    client.stop();
    wait(async { while resources.next().await.is_some() {} });
    client.wait().unwrap();
    world.assert_calm();
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn whoever_embeds_a_client_sees_whether_the_portal_is_there_and_what_it_refuses() {
    let (mut world, client) = embedded();
    let (mut portal, mut resources) = (client.portal(), client.resources());
    let joined = |state: &PortalState| matches!(state, PortalState::Joined);
    let first = wait_until(&mut portal, |now| joined(&now.state));
    assert_eq!(first.generation, Some(Generation::V2));
    assert_eq!(first.last_refusal, None);
    let lan = wait_until(&mut resources, |now| names(now) == ["office lan"]);

    // Nobody is there to give access.
    world.stop("gateway");
    let namespace = world.network.namespace("client");
    assert_eq!(first_reply(namespace, Duration::from_millis(100)), None);
    let refused = wait_until(&mut portal, |now| now.last_refusal.is_some());
    let refusal = refused.last_refusal.unwrap();
    assert_eq!(
        (refusal.resource, refusal.reason),
        (lan[0].id, Refusal::Offline)
    );
    let status = client.status().unwrap();
    assert_eq!(status["portal"], "joined");
    assert_eq!(status["portal_generation"], "v2");
    assert_eq!(status["last_refusal"]["reason"], "offline");
    let shown = world.table("embedded");
    assert!(
        shown.contains("last refused: office lan, offline"),
        "{shown}"
    );

    world.stop("portal");
    let away = wait_until(&mut portal, |now| {
        matches!(now.state, PortalState::Away { .. })
    });
    let PortalState::Away {
        since, retry_at, ..
    } = away.state
    else {
        panic!("{away:?}");
    };
    assert!(retry_at >= since);
    let status = client.status().unwrap();
    assert_eq!(status["portal"], "away");
    assert!(status["portal_error"].is_string(), "{status}");
    let shown = world.table("embedded");
    assert!(shown.contains("portal away for"), "{shown}");

    world.start("portal");
    wait_until(&mut portal, |now| joined(&now.state));
    client.stop();
    client.wait().unwrap();
}
