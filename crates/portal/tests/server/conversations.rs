//! The example conversations of the protocol over real sockets, in both generations (portal-protocol.md §13), and with
//! clients of the framework that it comes from (§2).

use connlib_portal::admin::{Request, Response, TokenFor, call};
use connlib_wire::secret::Secret;
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::FILE;
use crate::peers::{Peer, Portal, connect, device, encode, relay, request};

/// What a generation calls things.
struct Words {
    path: &'static str,
    request: &'static str,
    create: &'static str,
    acknowledge: &'static str,
    success: &'static str,
    failure: &'static str,
    candidates: &'static str,
    invalidate: &'static str,
    is_v1: bool,
}

const GENERATIONS: [Words; 2] = [
    Words {
        path: "websocket",
        request: "create_flow",
        create: "authorize_flow",
        acknowledge: "flow_authorized",
        success: "flow_created",
        failure: "flow_creation_failed",
        candidates: "broadcast_ice_candidates",
        invalidate: "broadcast_invalidated_ice_candidates",
        is_v1: true,
    },
    Words {
        path: "v2/websocket",
        request: "request_authorization",
        create: "create_authorization",
        acknowledge: "authorization_created",
        success: "authorization_created",
        failure: "authorization_creation_failed",
        candidates: "new_gateway_ice_candidates",
        invalidate: "invalidate_gateway_ice_candidates",
        is_v1: false,
    },
];

const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

impl Words {
    /// A peer that has joined, and what it was told. The older generation shows its token in the address.
    async fn join(
        &self,
        portal: &Portal,
        role: &'static str,
        key: u8,
        token: &Secret,
    ) -> (Peer, Value) {
        let mut peer = self.open(portal, role, key, token).await.unwrap();
        let init = peer.join(role).await;

        (peer, init)
    }

    async fn open(
        &self,
        portal: &Portal,
        role: &str,
        key: u8,
        token: &Secret,
    ) -> Result<Peer, tungstenite::Error> {
        let path = device(role, &format!("{role}-{key}"), key).replace("v2/websocket", self.path);
        let request = match self.is_v1 {
            true => {
                let path = path.replace('?', &format!("?token={}&", encode(token.expose())));
                request(portal.addr(), &path, None)
            }
            false => request(portal.addr(), &path, Some(token)),
        };

        connect(portal.addr(), request).await
    }

    fn candidates_for(&self, gateway: &Value, line: &str) -> Value {
        match self.is_v1 {
            true => json!({"gateway_ids": [gateway], "candidates": [line]}),
            false => json!({"gateway_id": gateway, "candidates": [line]}),
        }
    }

    /// Access is asked for and given. What the gateway and the client were told.
    async fn connect(
        &self,
        client: &mut Peer,
        gateway: &mut Peer,
        resource: &Value,
    ) -> (Value, Value) {
        let ask = json!({"resource_id": resource, "connected_gateway_ids": []});
        client.say(self.request, ask).await;
        let create = gateway.hear(self.create).await;
        let acknowledgement = json!({"ref": create["ref"]});
        gateway.say(self.acknowledge, acknowledgement).await;
        assert_eq!(gateway.hear("phx_reply").await["status"], "ok");

        (create, client.hear(self.success).await)
    }

    fn assert_members(&self, payload: &Value, members: &[&str]) {
        for member in members {
            assert_eq!(
                payload.get(member).is_none(),
                self.is_v1,
                "{member}: {payload}"
            );
        }
    }
}

/// §13.1.
#[tokio::test]
async fn everybody_comes_up_and_the_first_packet_finds_its_way() {
    for words in &GENERATIONS {
        let portal = Portal::start().await;
        let (client_token, gateway_token) = (
            portal.client_token("alice").await,
            portal.gateway_token().await,
        );
        let _relay = relay_joins(&portal, SECRET).await;
        let (mut gateway, init) = words.join(&portal, "gateway", 2, &gateway_token).await;
        words.assert_members(&init, &["flow_logs"]);
        assert_eq!(init["authorizations"], json!([]));
        assert_eq!(init["relays"][0]["type"], "turn");
        let (mut client, init) = words.join(&portal, "client", 1, &client_token).await;
        words.assert_members(&init, &["flow_logs", "authorizations"]);
        assert_eq!(init["relays"][0]["addr"], "192.0.2.10:3478");
        let resource = &init["resources"][0];
        assert_eq!(resource["address"], "10.20.0.0/16");

        let (create, success) = words
            .connect(&mut client, &mut gateway, &resource["id"])
            .await;
        words.assert_members(&create, &["use_iceless", "flow_logs_ingest_token"]);
        words.assert_members(&success, &["use_iceless", "flow_logs_ingest_token"]);
        assert_eq!(create["client"]["preshared_key"], success["preshared_key"]);
        for side in ["client_ice_credentials", "gateway_ice_credentials"] {
            assert_eq!(create[side], success[side]);
        }

        let (id, of_client) = (&success["gateway_id"], &create["client"]["id"]);
        let line = "candidate:b1 1 udp 2130706175 203.0.113.5 52625 typ host";
        client
            .say(words.candidates, words.candidates_for(id, line))
            .await;
        client
            .say(words.invalidate, words.candidates_for(id, line))
            .await;
        let told = json!({"client_id": of_client, "candidates": [line]});
        assert_eq!(gateway.hear("ice_candidates").await, told);
        assert_eq!(gateway.hear("invalidate_ice_candidates").await, told);
        let both = json!({"client_ids": [of_client], "candidates": [line]});
        gateway.say("broadcast_ice_candidates", both.clone()).await;
        gateway
            .say("broadcast_invalidated_ice_candidates", both)
            .await;
        let told = json!({"gateway_id": id, "candidates": [line]});
        assert_eq!(client.hear("ice_candidates").await, told);
        assert_eq!(client.hear("invalidate_ice_candidates").await, told);
        assert!(client.is_alive().await && gateway.is_alive().await);
    }
}

/// A client of one generation and a gateway of the other are connected all the same.
#[tokio::test]
async fn generations_mix() {
    for [of_client, of_gateway] in [[0, 1], [1, 0]] {
        let portal = Portal::start().await;
        let (client_words, gateway_words) = (&GENERATIONS[of_client], &GENERATIONS[of_gateway]);
        let token = portal.gateway_token().await;
        let (mut gateway, _) = gateway_words.join(&portal, "gateway", 2, &token).await;
        let token = portal.client_token("alice").await;
        let (mut client, init) = client_words.join(&portal, "client", 1, &token).await;

        let ask = json!({"resource_id": init["resources"][0]["id"], "connected_gateway_ids": []});
        client.say(client_words.request, ask).await;
        let create = gateway.hear(gateway_words.create).await;
        let acknowledgement = json!({"ref": create["ref"]});
        gateway
            .say(gateway_words.acknowledge, acknowledgement)
            .await;
        client.hear(client_words.success).await;

        // Each path knows its own requests alone.
        client.say(gateway_words.request, json!({})).await;
        let reply = client.hear("phx_reply").await;
        assert_eq!(reply["response"]["reason"], "unknown_message");
    }
}

/// §13.2.
#[tokio::test]
async fn an_admin_takes_a_policy_away_and_gives_it_back() {
    for words in &GENERATIONS {
        let portal = Portal::start().await;
        let token = portal.gateway_token().await;
        let (mut gateway, _) = words.join(&portal, "gateway", 2, &token).await;
        let token = portal.client_token("alice").await;
        let (mut client, init) = words.join(&portal, "client", 1, &token).await;
        let resource = init["resources"][0]["id"].clone();
        let (create, first) = words.connect(&mut client, &mut gateway, &resource).await;

        let (without, _) = FILE.split_once("[[policy]]").unwrap();
        portal.apply(without).await;
        let rejected = json!({"client_id": create["client"]["id"], "resource_id": resource});
        assert_eq!(gateway.hear("reject_access").await, rejected);
        assert_eq!(client.hear("resource_deleted").await, resource);
        let ask = json!({"resource_id": resource, "connected_gateway_ids": []});
        client.say(words.request, ask).await;
        let refused = client.hear(words.failure).await;
        assert_eq!(refused["reason"], "not_found");

        portal.apply(FILE).await;
        let again = client.hear("resource_created_or_updated").await;
        assert_eq!(again["id"], resource);
        let (_, second) = words.connect(&mut client, &mut gateway, &resource).await;
        for same in [
            "preshared_key",
            "client_ice_credentials",
            "gateway_ice_credentials",
        ] {
            assert_eq!(first[same], second[same]);
        }

        let closed = "conditions = [ { remote_ip = [\"192.0.2.1\"] } ]";
        portal.apply(&format!("{FILE}{closed}")).await;
        gateway.hear("reject_access").await;
        client.hear("resource_deleted").await;
        let ask = json!({"resource_id": resource, "connected_gateway_ids": []});
        client.say(words.request, ask).await;
        let refused = client.hear(words.failure).await;
        assert_eq!(refused["reason"], "forbidden");
        assert_eq!(refused["violated_properties"], json!(["remote_ip"]));
    }
}

/// §13.3.
#[tokio::test]
async fn a_gateway_that_is_gone_is_replaced_by_another_or_none() {
    for words in &GENERATIONS {
        let portal = Portal::start().await;
        let gateway_token = portal.gateway_token().await;
        let (mut first, _) = words.join(&portal, "gateway", 2, &gateway_token).await;
        let token = portal.client_token("alice").await;
        let (mut client, init) = words.join(&portal, "client", 1, &token).await;
        let resource = init["resources"][0]["id"].clone();
        let (_, success) = words.connect(&mut client, &mut first, &resource).await;

        let (mut second, _) = words.join(&portal, "gateway", 3, &gateway_token).await;
        drop(first);
        gateways_are_online(&portal, 1).await;
        let ask =
            json!({"resource_id": resource, "connected_gateway_ids": [success["gateway_id"]]});
        client.say(words.request, ask.clone()).await;
        let create = second.hear(words.create).await;
        second
            .say(words.acknowledge, json!({"ref": create["ref"]}))
            .await;
        let other = client.hear(words.success).await;
        assert_ne!(other["gateway_id"], success["gateway_id"]);

        drop(second);
        gateways_are_online(&portal, 0).await;
        client.say(words.request, ask).await;
        let refused = client.hear(words.failure).await;
        assert_eq!(refused["reason"], "offline");
    }
}

/// §13.4.
#[tokio::test]
async fn a_relay_with_another_secret_takes_the_place_of_the_old_one() {
    for words in &GENERATIONS {
        let portal = Portal::start().await;
        let old = relay_joins(&portal, SECRET).await;
        let token = portal.client_token("alice").await;
        let (mut client, init) = words.join(&portal, "client", 1, &token).await;
        let id = init["relays"][0]["id"].clone();

        drop(old);
        let _new = relay_joins(&portal, &SECRET.replace('0', "a")).await;
        // The new one may be told of before the end of the old one was noticed.
        let mut connected = vec![];
        let mut disconnected = vec![];
        while !disconnected.contains(&id) {
            let presence = client.hear("relays_presence").await;
            disconnected.extend(presence["disconnected_ids"].as_array().unwrap().clone());
            connected = presence["connected"].as_array().unwrap().clone();
        }
        assert_eq!(connected.len(), 1);
        assert_ne!(connected[0]["id"], id);
    }
}

/// §13.5.
#[tokio::test]
async fn a_revoked_token_ends_session_and_grants_and_lets_nobody_in() {
    for words in &GENERATIONS {
        let portal = Portal::start().await;
        let token = portal.gateway_token().await;
        let (mut gateway, _) = words.join(&portal, "gateway", 2, &token).await;
        let actor = "alice".to_owned();
        let (id, token) = portal.token(TokenFor::Client { actor }).await;
        let (mut client, init) = words.join(&portal, "client", 1, &token).await;
        let resource = init["resources"][0]["id"].clone();
        words.connect(&mut client, &mut gateway, &resource).await;

        let revoke = Request::RevokeToken { id };
        call(&portal.target(), revoke).await.unwrap();
        assert_eq!(client.hear("disconnect").await["reason"], "token_expired");
        client.closed().await;
        assert_eq!(gateway.hear("reject_access").await["resource_id"], resource);
        let Err(tungstenite::Error::Http(response)) =
            words.open(&portal, "client", 1, &token).await
        else {
            panic!("it was let in");
        };
        assert_eq!(response.status().as_u16(), 401);
        let body = response.body().clone().unwrap_or_default();
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["code"], "invalid_token");
    }
}

/// §13.6.
#[tokio::test]
async fn a_restart_of_the_portal_changes_nothing_for_anybody() {
    for words in &GENERATIONS {
        let portal = Portal::start().await;
        let gateway_token = portal.gateway_token().await;
        let client_token = portal.client_token("alice").await;
        let (mut gateway, gateway_init) = words.join(&portal, "gateway", 2, &gateway_token).await;
        let (mut client, client_init) = words.join(&portal, "client", 1, &client_token).await;
        let resource = client_init["resources"][0]["id"].clone();
        let (create, _) = words.connect(&mut client, &mut gateway, &resource).await;

        let portal = portal.restart().await;
        assert_eq!(client.closed().await, 1012);
        let (_gateway, init) = words.join(&portal, "gateway", 2, &gateway_token).await;
        assert_eq!(init["interface"], gateway_init["interface"]);
        let granted = &init["authorizations"][0];
        assert_eq!(granted["client_id"], create["client"]["id"]);
        assert_eq!(granted["resource_id"], resource);
        let (_client, init) = words.join(&portal, "client", 1, &client_token).await;
        assert_eq!(init["interface"], client_init["interface"]);
        assert_eq!(init["resources"], client_init["resources"]);
    }
}

/// What the framework's own clients say: arrays, texts as references, and a farewell to the channel.
#[tokio::test]
async fn clients_of_the_framework_are_answered_in_arrays() {
    let portal = Portal::start().await;
    let token = portal.client_token("alice").await;
    let path = format!("{}&vsn=2.0.0", device("client", "js", 1));
    let mut peer = connect(portal.addr(), request(portal.addr(), &path, Some(&token)))
        .await
        .unwrap();
    // Says something, and reads the answers to it: more of them than expected would be taken for answers to what follows.
    let mut ask = async |message: Value, answers: usize| -> Vec<Value> {
        let message = Message::text(message.to_string());
        peer.websocket.send(message).await.unwrap();
        let mut heard = vec![];
        while heard.len() < answers {
            heard.push(peer.next().await);
        }
        heard
    };
    let ok = json!({"status": "ok", "response": {}});

    for reference in ["1", "6"] {
        let heard = ask(json!([reference, reference, "client", "phx_join", {}]), 2).await;
        let joined = json!([reference, reference, "client", "phx_reply", ok]);
        assert_eq!(heard[0], joined);
        let init = heard[1].as_array().unwrap();
        assert_eq!(
            init[..4],
            [
                json!(reference),
                json!(null),
                json!("client"),
                json!("init")
            ]
        );
        let heard = ask(json!([null, "2", "phoenix", "heartbeat", {}]), 1).await;
        assert_eq!(heard, [json!([null, "2", "phoenix", "phx_reply", ok])]);
        let heard = ask(json!([reference, "3", "client", "no_relays", {}]), 1).await;
        assert_eq!(heard[0][3], "relays_presence");
        let heard = ask(json!([reference, "4", "client", "phx_leave", {}]), 1).await;
        let left = json!([reference, "4", "client", "phx_reply", ok]);
        assert_eq!(heard, [left]);
        let heard = ask(json!([reference, "5", "client", "no_relays", {}]), 1).await;
        assert_eq!(heard[0][4]["response"]["reason"], "unmatched topic");
    }

    let path = format!("{}&vsn=3.0.0", device("client", "js", 1));
    let refused = connect(portal.addr(), request(portal.addr(), &path, Some(&token))).await;
    let Err(tungstenite::Error::Http(response)) = refused.map(drop) else {
        panic!("it was let in");
    };
    assert_eq!(response.status().as_u16(), 400);
}

/// Waits until the portal has noticed how many gateways there are.
async fn gateways_are_online(portal: &Portal, count: usize) {
    loop {
        let answer = call(&portal.target(), Request::Show).await.unwrap();
        let Response::Shown(shown) = answer else {
            panic!("{answer:?}");
        };
        let online = shown.gateways.iter().filter(|gateway| gateway.online);
        if online.count() == count {
            return;
        }
    }
}

async fn relay_joins(portal: &Portal, secret: &str) -> Peer {
    let (_, token) = portal.token(TokenFor::Relay).await;
    let mut peer = connect(
        portal.addr(),
        request(portal.addr(), &relay(3_478), Some(&token)),
    )
    .await
    .unwrap();
    peer.topic = "relay";
    peer.say("phx_join", json!({"stamp_secret": secret})).await;
    assert_eq!(peer.hear("phx_reply").await["status"], "ok");
    assert_eq!(peer.hear("init").await, json!({}));

    peer
}
