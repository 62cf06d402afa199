//! Recorded sessions of the forerunner's client, gateway and relay, led by our portal.

use connlib_wire::id::SiteId;
use connlib_wire::portal::TunnelAddresses;

use super::*;
use crate::model::{Actor, Client, Device, Gateway, Policy, PolicyId, PskBase, Resource, Site};
use crate::tests::ids;

/// What was recorded of a generation.
struct Recording {
    generation: Generation,
    files: [(Role, &'static str); 3],
    request: &'static str,
    create: &'static str,
    acknowledge: &'static str,
    success: &'static str,
}

const RECORDINGS: [Recording; 2] = [
    Recording {
        generation: Generation::V1,
        files: [
            (
                Role::Relay,
                include_str!("../../../../wire/tests/vectors/sep2025-relay.jsonl"),
            ),
            (
                Role::Gateway,
                include_str!("../../../../wire/tests/vectors/sep2025-gateway.jsonl"),
            ),
            (
                Role::Client,
                include_str!("../../../../wire/tests/vectors/sep2025-client.jsonl"),
            ),
        ],
        request: "create_flow",
        create: "authorize_flow",
        acknowledge: "flow_authorized",
        success: "flow_created",
    },
    Recording {
        generation: Generation::V2,
        files: [
            (
                Role::Relay,
                include_str!("../../../../wire/tests/vectors/aug2026-relay.jsonl"),
            ),
            (
                Role::Gateway,
                include_str!("../../../../wire/tests/vectors/aug2026-gateway.jsonl"),
            ),
            (
                Role::Client,
                include_str!("../../../../wire/tests/vectors/aug2026-client.jsonl"),
            ),
        ],
        request: "request_authorization",
        create: "create_authorization",
        acknowledge: "authorization_created",
        success: "authorization_created",
    },
];

const CLIENT: &str = "31acfd22-ceef-53d2-81e6-84fadad91144";
const GATEWAY: &str = "8a64d94c-dfcb-57bf-9321-9c245f5d2bab";
const RESOURCES: [(&str, &str, &str); 3] = [
    (
        "lan",
        "feda7a97-6ab4-5269-a490-c30428bc4c04",
        "10.20.0.0/24",
    ),
    (
        "lab wildcard",
        "f117fd60-0779-5d36-b633-199072d40bd7",
        "**.lab.internal",
    ),
    (
        "web only",
        "a02c68a0-74fe-55f7-a550-5256281d107a",
        "10.30.0.2",
    ),
];

#[test]
fn recorded_sessions_of_both_generations_go_their_way() {
    for recording in &RECORDINGS {
        goes_its_way(recording);
    }
}

fn goes_its_way(recording: &Recording) {
    let mut portal = Portal::with("");
    let tokens = prepare(&mut portal);
    let began_at = portal.now;
    let mut peers: Vec<(Role, Peer)> = vec![];
    let mut candidates = vec![];
    let (mut asked, mut granted) = (0, 0);

    for (at, role, line) in lines(recording) {
        portal.pass(began_at + at - portal.now);
        if let Some(request) = line.get("request") {
            peers.retain(|(other, _)| *other != role);
            let token = &tokens[role as usize];
            let connect = parsed(recording.generation, role, token, request);
            let peer = portal.connect(&connect).unwrap();
            peers.push((role, peer));
            continue;
        }
        let peer = *peers.iter().find(|(other, _)| *other == role).unwrap();
        let peer = peer.1;
        if line.get("closed").is_some() {
            portal.disconnect(peer);
            continue;
        }

        let mut message = line["msg"].clone();
        let event = message["event"].as_str().unwrap().to_owned();
        if event == recording.request {
            asked += 1;
        } else if event == recording.acknowledge {
            // The reference is ours, not the recorded one.
            let create = sent(&portal).rfind(|message| message["event"] == recording.create);
            message["payload"]["ref"] = create.unwrap()["payload"]["ref"].clone();
            granted += 1;
        } else if event.ends_with("ice_candidates") {
            candidates.push(message["payload"]["candidates"].clone());
        }
        portal.say_text(peer, &message.to_string());
        portal.settle();
    }

    assert!(
        asked >= 4 && asked == granted,
        "{asked} asked, {granted} granted"
    );
    let errors: Vec<Value> = sent(&portal)
        .filter(|message| message["payload"]["status"] == "error")
        .collect();
    assert_eq!(errors, [] as [Value; 0]);
    let forwarded: Vec<Value> = sent(&portal)
        .filter(|message| {
            message["event"]
                .as_str()
                .unwrap()
                .ends_with("ice_candidates")
        })
        .map(|message| message["payload"]["candidates"].clone())
        .collect();
    assert!(candidates.len() >= 8, "{candidates:?}");
    assert_eq!(forwarded, candidates);
    let successes = sent(&portal)
        .filter(|message| message["topic"] == "client" && message["event"] == recording.success);
    assert_eq!(successes.count(), granted);
    assert_members_fit(recording.generation, &portal);
}

/// Members of the newer generation are there in it, and there alone.
fn assert_members_fit(generation: Generation, portal: &Portal) {
    let is_expected = generation == Generation::V2;
    for message in sent(portal) {
        let (topic, event) = (message["topic"].as_str(), message["event"].as_str());
        let members: &[&str] = match (topic, event) {
            (Some("client"), Some("init")) => &["flow_logs", "authorizations"],
            (Some("gateway"), Some("init")) => &["flow_logs"],
            (
                _,
                Some(
                    "flow_created"
                    | "authorize_flow"
                    | "authorization_created"
                    | "create_authorization",
                ),
            ) => &["flow_logs_ingest_token", "use_iceless"],
            _ => &[],
        };
        for member in members {
            let is_there = message["payload"].get(member).is_some();
            assert_eq!(is_there, is_expected, "{member} of {event:?}");
        }
    }
}

/// Everything that the portal sent.
fn sent(portal: &Portal) -> impl DoubleEndedIterator<Item = Value> {
    portal.waiting.iter().filter_map(|event| match event {
        Event::Send { text, .. } => Some(serde_json::from_str(text).unwrap()),
        Event::Ping { .. } | Event::Decided { .. } | Event::Close { .. } => None,
    })
}

/// What the peers sent, in the order of time.
fn lines(recording: &Recording) -> Vec<(Duration, Role, Value)> {
    let mut lines: Vec<(Duration, Role, Value)> = (recording.files)
        .into_iter()
        .flat_map(|(role, file)| file.lines().map(move |line| (role, line)))
        .map(|(role, line)| (role, serde_json::from_str::<Value>(line).unwrap()))
        .filter(|(_, line)| line["dir"] == "peer->portal")
        .map(|(role, line)| {
            let at = Duration::from_millis(line["t_ms"].as_u64().unwrap());
            (at, role, line)
        })
        .collect();
    lines.sort_by_key(|(at, _, _)| *at);
    lines
}

/// Puts in place what the recorded peers know by id. Returns the tokens by role.
fn prepare(portal: &mut Portal) -> [Secret; 3] {
    let (site, actor) = (SiteId(ids(1)), crate::model::ActorId(ids(2)));
    let device = |external_id: &str, host: u8| Device {
        external_id: external_id.to_owned(),
        name: "recorded".to_owned(),
        addresses: TunnelAddresses {
            ipv4: [100, 64, 0, host].into(),
            ipv6: format!("fd00:2021:1111::{host}").parse().unwrap(),
        },
        psk_base: PskBase::new([1; 32]),
    };
    let mut edits = vec![
        Edit::PutSite(Site {
            id: site,
            name: "lab".to_owned(),
        }),
        Edit::PutActor(Actor {
            id: actor,
            name: "tester".to_owned(),
            groups: ["lab".to_owned()].into(),
        }),
        Edit::PutClient(Client {
            id: CLIENT.parse().unwrap(),
            actor,
            verified: false,
            device: device("lab-client-1", 3),
        }),
        Edit::PutGateway(Gateway {
            id: GATEWAY.parse().unwrap(),
            site,
            device: device("lab-gateway-1", 2),
        }),
    ];
    for (number, (name, id, address)) in (10..).zip(RESOURCES) {
        let resource = Resource {
            id: id.parse().unwrap(),
            name: name.to_owned(),
            address: address.parse().unwrap(),
            sites: vec![site],
            filters: vec![],
        };
        edits.push(Edit::PutPolicy(Policy {
            id: PolicyId(ids(number)),
            group: "lab".to_owned(),
            resource: resource.id,
            conditions: vec![],
        }));
        edits.insert(2, Edit::PutResource(resource));
    }
    portal.edit(&edits);

    let kinds = [
        TokenKind::Client(actor),
        TokenKind::Gateway(site),
        TokenKind::Relay,
    ];
    kinds.map(|kind| portal.token(kind, None).1)
}

/// What a recorded request asks for.
fn parsed(generation: Generation, role: Role, token: &Secret, request: &Value) -> Connect {
    let mut headers = request["headers"].as_array().unwrap().iter();
    let user_agent = headers.find(|header| header[0] == "user-agent").unwrap();
    let line = request["line"].as_str().unwrap();
    let query = line.split(['?', ' ']).nth(2).unwrap();
    let value = |name: &str| {
        let pair = query
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
        let (_, value) = pair?;
        Some(
            value
                .replace("%2B", "+")
                .replace("%2F", "/")
                .replace("%3D", "="),
        )
    };
    Connect {
        role,
        generation,
        framing: Framing::Object,
        token: Some(token.clone()),
        external_id: value("external_id"),
        name: value("name"),
        public_key: value("public_key"),
        ipv4: value("ipv4"),
        ipv6: value("ipv6"),
        port: value("port"),
        user_agent: user_agent[1].as_str().map(str::to_owned),
        remote: None,
    }
}
