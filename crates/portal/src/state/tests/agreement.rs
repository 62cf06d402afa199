//! Whatever happens, gateways let in whom the portal lets in and nobody else, and only who has no token any longer is told so
//! (portal-protocol.md §14.5).

use std::collections::BTreeMap;

use connlib_wire::id::ResourceId;
use proptest::prelude::*;

use super::*;
use crate::model::Token;

const FILES: [&str; 6] = [
    FILE,
    "",
    "[[site]]\nname = \"hq\"\n[[site]]\nname = \"branch\"\n[[actor]]\nname = \"alice\"\ngroups = [\"staff\"]\n[[actor]]\nname = \"bob\"\ngroups = [\"staff\"]\n[[resource]]\nname = \"lan\"\naddress = \"10.21.0.0/16\"\nsites = [\"hq\", \"branch\"]\n[[policy]]\ngroup = \"staff\"\nresource = \"lan\"",
    "[[site]]\nname = \"hq\"\n[[site]]\nname = \"branch\"\n[[actor]]\nname = \"alice\"\ngroups = [\"guests\"]\n[[resource]]\nname = \"lan\"\naddress = \"10.20.0.0/16\"\nsites = [\"branch\"]\n[[policy]]\ngroup = \"guests\"\nresource = \"lan\"",
    // The clock begins on a Tuesday, at 22:13:20 UTC.
    "[[site]]\nname = \"hq\"\n[[actor]]\nname = \"alice\"\ngroups = [\"staff\"]\n[[actor]]\nname = \"bob\"\ngroups = [\"staff\"]\n[[resource]]\nname = \"lan\"\naddress = \"10.20.0.0/16\"\nsites = [\"hq\"]\n[[policy]]\ngroup = \"staff\"\nresource = \"lan\"\nconditions = [{ hours = \"22:00-22:20\" }]\n[[policy]]\ngroup = \"staff\"\nresource = \"lan\"\nconditions = [{ remote_ip = [\"203.0.113.0\"], hours = \"22:16-22:25\" }]",
    "[[site]]\nname = \"hq\"\n[[actor]]\nname = \"alice\"\ngroups = [\"staff\"]\n[[actor]]\nname = \"bob\"\ngroups = [\"guests\"]\n[[resource]]\nname = \"lan\"\naddress = \"10.20.0.0/16\"\nsites = [\"hq\"]\n[[policy]]\ngroup = \"staff\"\nresource = \"lan\"\nconditions = [{ not_remote_ip = [\"203.0.113.0\"] }]\n[[policy]]\ngroup = \"guests\"\nresource = \"lan\"\nconditions = [{ hours = \"22:00-22:18\" }]",
];

const ACTORS: [&str; 2] = ["alice", "bob"];
const SITES: [&str; 2] = ["hq", "branch"];

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Ask(usize, &'static str),
    /// From where, the last byte of an address; and for how many seconds its token is good.
    ConnectClient(usize, u8, Option<u64>),
    /// Whether an older connection of it answers comes last.
    ConnectGateway(usize, usize, bool),
    Disconnect(usize),
    Hang(usize),
    Apply(usize),
    Revoke(usize),
    Wait(u64),
    Restart,
}

/// The portal, and gateways that do what they are told.
struct Scene {
    portal: Portal,
    clients: BTreeMap<SocketId, Peer>,
    gateways: BTreeMap<SocketId, (Peer, GatewayId)>,
    /// Whom each gateway lets in and until when, whether connected or not.
    admitted: BTreeMap<GatewayId, BTreeMap<(ClientId, ResourceId), Option<u64>>>,
    acknowledged: BTreeSet<(GatewayId, ResourceId)>,
    /// Gateways that install grants and never acknowledge.
    hung: BTreeSet<GatewayId>,
    /// The token of each connection that was ever let in, and whether its peer was told that it is no good.
    tokens: BTreeMap<SocketId, (TokenId, bool)>,
}

proptest! {
    #[test]
    fn gateways_and_portal_agree_on_who_is_let_in(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut scene = Scene::new();
        for step in steps {
            scene.take(&step);
            scene.talk();
            scene.check();
        }

        // All gateways that come back learn what they missed.
        scene.portal.pass(Duration::from_secs(20));
        scene.talk();
        scene.check();
    }
}

impl Scene {
    fn new() -> Self {
        Self {
            portal: Portal::new(),
            clients: BTreeMap::new(),
            gateways: BTreeMap::new(),
            admitted: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            hung: BTreeSet::new(),
            tokens: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        let portal = &mut self.portal;
        match step {
            Step::Ask(client, resource) => {
                let known = portal.state.directory().resources().values();
                let id = known.clone().find(|known| known.name == *resource);
                let asking = self.clients.values().nth(*client).copied();
                if let (Some(peer), Some(id)) = (asking, id.map(|resource| resource.id)) {
                    let ask = json!({"resource_id": id, "connected_gateway_ids": []});
                    portal.say(peer, "request_authorization", ask);
                }
            }
            Step::ConnectClient(actor, address, lasts) => {
                let actor = ACTORS[*actor];
                if let Some(owner) = portal.state.directory().actor_named(actor) {
                    let kind = TokenKind::Client(owner.id);
                    let (id, token) = portal.token(kind, lasts.map(|secs| portal.unix + secs));
                    let peer = portal.join(&Connect {
                        remote: Some([203, 0, 113, *address].into()),
                        ..device(Role::Client, &token, actor, 1)
                    });
                    self.clients.insert(peer.socket, peer);
                    self.tokens.insert(peer.socket, (id, false));
                }
            }
            Step::ConnectGateway(site, name, old_answers) => {
                self.connect_gateway(SITES[*site], &name.to_string(), *old_answers);
            }
            Step::Disconnect(index) => {
                let gateways = self.gateways.values().map(|(peer, _)| *peer);
                let all: Vec<Peer> = self.clients.values().copied().chain(gateways).collect();
                if let Some(peer) = all.get(*index) {
                    portal.disconnect(*peer);
                }
            }
            Step::Hang(index) => {
                let id = self.gateways.values().nth(*index).map(|(_, id)| *id);
                self.hung.extend(id);
            }
            Step::Apply(file) => portal.apply(FILES[*file]),
            Step::Revoke(index) => {
                let token = portal.state.directory().tokens().values().nth(*index);
                if let Some(token) = token.cloned() {
                    let grants = portal.state.directory().grants().values();
                    let fallen: Vec<Edit> = grants
                        .filter(|grant| grant.token == token.id)
                        .map(|grant| Edit::DropGrant(grant.key))
                        .collect();
                    let revoked_at = Some(portal.unix);
                    portal.edit(&[Edit::PutToken(Token {
                        revoked_at,
                        ..token
                    })]);
                    portal.edit(&fallen);
                }
            }
            Step::Wait(secs) => portal.pass(Duration::from_secs(*secs)),
            Step::Restart => {
                portal.settle();
                let stored = portal.stored.clone();
                // Not what it drew before, or what it makes would have ids that are taken.
                let seed = portal.state.fork_random().random();
                portal.state = State::new(portal.now, portal.unix, stored, seed);
                self.clients.clear();
                self.gateways.clear();
                self.tokens.clear();
                portal.waiting.clear();
            }
        }
    }

    fn connect_gateway(&mut self, site: &str, name: &str, old_answers: bool) {
        let portal = &mut self.portal;
        let Some(site) = portal.state.directory().site_named(site) else {
            return;
        };
        let kind = TokenKind::Gateway(site.id);
        let (token_id, token) = portal.token(kind, None);
        let connect = device(Role::Gateway, &token, name, 2);
        let (peer, admission) = portal.admit(&connect).unwrap();
        let is_in = match admission {
            Admission::Opened => true,
            Admission::Waiting if old_answers => {
                let all = self.gateways.values();
                all.for_each(|(peer, _)| portal.pong(*peer));
                assert_ne!(portal.decided(peer), Some(Ok(())));
                false
            }
            Admission::Waiting => {
                portal.pass(Duration::from_secs(1));
                portal.decided(peer) == Some(Ok(()))
            }
        };
        if is_in {
            portal.say(peer, "phx_join", Value::Null);
            let id = portal.gateway_id(peer);
            self.gateways.insert(peer.socket, (peer, id));
            self.tokens.insert(peer.socket, (token_id, false));
        }
    }

    /// Lets all gateways read and answer until nobody has anything to say.
    fn talk(&mut self) {
        loop {
            self.portal.settle();
            let mut said = false;
            for (peer, id) in self.gateways.clone().into_values() {
                for (event, payload) in self.portal.messages(peer) {
                    said |= self.obey(peer, id, &event, &payload);
                }
            }
            for peer in self.clients.clone().into_values() {
                for (event, payload) in self.portal.messages(peer) {
                    if event == "authorization_created" {
                        let gateway: GatewayId = read(&payload["gateway_id"]);
                        let resource: ResourceId = read(&payload["resource_id"]);
                        assert!(self.acknowledged.contains(&(gateway, resource)));
                    }
                    self.hear(peer, &event);
                }
            }
            if !said {
                return;
            }
        }
    }

    /// Notes that a peer was told to sign in anew, which it does only once.
    fn hear(&mut self, peer: Peer, event: &str) {
        if event == "disconnect" {
            let (_, was_told) = self.tokens.get_mut(&peer.socket).unwrap();
            assert!(!std::mem::replace(was_told, true));
        }
    }

    /// Does what a gateway does. Returns whether it said something.
    fn obey(&mut self, peer: Peer, id: GatewayId, event: &str, payload: &Value) -> bool {
        self.hear(peer, event);
        let admitted = self.admitted.entry(id).or_default();
        let pair = |entry: &Value| (read(&entry["client_id"]), read(&entry["resource_id"]));
        match event {
            "init" => {
                let listed = payload["authorizations"].as_array().unwrap();
                let ends: BTreeMap<(ClientId, ResourceId), Option<u64>> = (listed.iter())
                    .map(|entry| (pair(entry), entry["expires_at"].as_u64()))
                    .collect();
                admitted.retain(|pair, _| ends.contains_key(pair));
                for (pair, end) in admitted {
                    *end = ends[pair];
                }
            }
            "create_authorization" => {
                let resource = read(&payload["resource"]["id"]);
                let end = payload["expires_at"].as_u64();
                admitted.insert((read(&payload["client"]["id"]), resource), end);
                if self.hung.contains(&id) {
                    return false;
                }
                self.acknowledged.insert((id, resource));
                let acknowledgement = json!({"ref": payload["ref"]});
                self.portal
                    .say(peer, "authorization_created", acknowledgement);
                return true;
            }
            "reject_access" => {
                admitted.remove(&pair(payload));
            }
            _ => {}
        }
        false
    }

    fn check(&mut self) {
        self.check_tokens();
        let connected: BTreeSet<GatewayId> = self.portal.state.gateways.keys().copied().collect();
        for (gateway, admitted) in &self.admitted {
            if !connected.contains(gateway) {
                continue;
            }
            let unix = self.portal.unix;
            let granted: BTreeSet<(ClientId, ResourceId)> = (self.portal.stored.grants().values())
                .filter(|grant| grant.key.gateway == *gateway && grant.is_live(unix))
                .map(|grant| (grant.key.client, grant.key.resource))
                .collect();
            let admitted: BTreeSet<(ClientId, ResourceId)> = (admitted.iter())
                .filter(|(_, end)| end.is_none_or(|end| unix < end))
                .map(|(pair, _)| *pair)
                .collect();
            assert_eq!(admitted, granted);
        }
    }

    /// Who is connected has a good token, and who was told that it has none has none: a peer that is closed for any other reason
    /// just comes back.
    fn check_tokens(&mut self) {
        for (socket, (token, was_told)) in self.tokens.clone() {
            let tokens = self.portal.state.directory().tokens();
            let known = tokens.get(&token);
            let is_good = known.is_some_and(|token| token.is_usable(self.portal.unix));
            let is_open = self.portal.state.sockets.contains_key(&socket);
            assert!(is_good || !is_open, "it is still let in");
            assert!(!is_good || !was_told, "its token is good");
            let role = Role::Client;
            let closed = self.portal.closed(Peer { socket, role });
            assert_eq!(closed == Some(Goodbye::TokenEnded), was_told);
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, prop_oneof![Just("lan"), Just("wiki"), Just("everything")])
            .prop_map(|(client, resource)| Step::Ask(client, resource)),
        2 => (0..2_usize, 0..2_u8, proptest::option::weighted(0.3, 1..200_u64))
            .prop_map(|(actor, address, lasts)| Step::ConnectClient(actor, address, lasts)),
        2 => (0..2_usize, 0..2_usize, any::<bool>())
            .prop_map(|(site, name, old_answers)| Step::ConnectGateway(site, name, old_answers)),
        1 => (0..6_usize).prop_map(Step::Disconnect),
        1 => (0..3_usize).prop_map(Step::Hang),
        2 => (0..6_usize).prop_map(Step::Apply),
        1 => (0..8_usize).prop_map(Step::Revoke),
        2 => prop_oneof![1..30_u64, 1..300_u64].prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

fn read<T: std::str::FromStr<Err: std::fmt::Debug>>(value: &Value) -> T {
    value.as_str().unwrap().parse().unwrap()
}
