//! Who may open a socket (portal-protocol.md §1.1, §1.6, §10.1).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_wire::id::{ClientId, GatewayId, SiteId};
use connlib_wire::key::PublicKey;
use connlib_wire::portal::Generation;
use connlib_wire::portal::phoenix::Framing;
use connlib_wire::secret::Secret;
use rand::Rng as _;

use super::dialect::Dialect;
use super::session::{
    ClientSession, GatewaySession, Goodbye, RelayAddresses, Socket, SocketId, Who,
};
use super::version::{self, Version};
use super::{Clock, IDLE_AFTER, State};
use crate::model::{ActorId, Client, Device, Edit, Gateway, PskBase, Token, TokenKind};
use crate::token::Shown;

/// How long a gateway may say nothing before another that claims to be the same takes its place unasked: three heartbeats
/// of the slower kind missed one way or the other (portal-protocol.md §3.2).
const DEAD_AFTER: Duration = Duration::from_secs(40);

/// The longest name or external id, in bytes.
const MAX_TEXT: usize = 255;

/// The port of a relay that doesn't say (portal-protocol.md §7).
const DEFAULT_RELAY_PORT: u16 = 3478;

/// What a peer shows when it opens a socket: the texts as they came.
#[derive(Clone, Debug)]
pub struct Connect {
    /// The socket it wants.
    pub role: Role,
    /// The generation of the protocol that it speaks there; relays know one alone.
    pub generation: Generation,
    /// How its messages are framed.
    pub framing: Framing,
    /// Its token.
    pub token: Option<Secret>,
    /// What the device calls itself.
    pub external_id: Option<String>,
    /// What people call it.
    pub name: Option<String>,
    /// Its WireGuard key in base64.
    pub public_key: Option<String>,
    /// A relay's address.
    pub ipv4: Option<String>,
    /// A relay's address.
    pub ipv6: Option<String>,
    /// A relay's port.
    pub port: Option<String>,
    /// What program it says it is; a client must say so.
    pub user_agent: Option<String>,
    /// Where it connects from, as the portal sees it. Conditions that ask for an address don't hold without one.
    pub remote: Option<IpAddr>,
}

/// The kinds of sockets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// For devices that ask for access.
    Client,
    /// For programs that give access.
    Gateway,
    /// For STUN/TURN servers.
    Relay,
}

/// What becomes of a peer that may come in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// Its socket is open. It is silent until it joins.
    Opened,
    /// It is a gateway whose older socket is asked whether it is alive; [`Event::Decided`](super::Event) tells.
    Waiting,
}

/// Why a socket isn't opened.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// No token was shown.
    #[error("No token was shown")]
    MissingToken,
    /// The token is malformed, unknown, of another role, expired or revoked; which of these isn't told.
    #[error("Invalid token")]
    InvalidToken,
    /// The same token connected from the same address too often.
    #[error("Connecting too often; wait a second")]
    RateLimited,
    /// A parameter is missing or malformed.
    #[error("Invalid parameter `{parameter}`: {problem}")]
    InvalidParameter {
        /// Which.
        parameter: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The gateway is connected already, and alive.
    #[error("A gateway with this id is connected already")]
    GatewayAlreadyConnected,
    /// All tunnel addresses are taken.
    #[error("No tunnel address is left for another device")]
    NoAddressLeft,
}

/// Whether a gateway's place is free.
enum Entry {
    Free(GatewayId),
    /// By a socket that may be alive.
    Held(GatewayId, SocketId),
}

impl Refused {
    /// The HTTP status (portal-protocol.md §1.6).
    pub fn status(&self) -> u16 {
        match self {
            Self::MissingToken | Self::InvalidToken => 401,
            Self::InvalidParameter { .. } => 400,
            Self::GatewayAlreadyConnected => 409,
            // Older peers end their session for good at a 429.
            Self::RateLimited | Self::NoAddressLeft => 503,
        }
    }

    /// The problem's code (portal-protocol.md §1.6).
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingToken => "missing_token",
            Self::InvalidToken => "invalid_token",
            Self::InvalidParameter { .. } => "invalid_connect_params",
            Self::GatewayAlreadyConnected => "gateway_already_connected",
            Self::RateLimited => "rate_limit",
            Self::NoAddressLeft => "unhandled_connect_error",
        }
    }
}

/// What a token opens, once its role and the socket's agree.
enum Entrance {
    Client(ActorId),
    Gateway(SiteId),
    Relay,
}

impl State {
    /// Opens `socket` for a peer, lets it wait, or says why not.
    ///
    /// A client that is connected already is replaced; a gateway is not, unless the first one is dead. If it may be
    /// alive, it is asked, and the newcomer waits for a second at the most.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing has changed then.
    pub fn handle_connect(
        &mut self,
        now: Instant,
        unix: u64,
        socket: SocketId,
        connect: &Connect,
    ) -> Result<Admission, Refused> {
        self.clock = Clock { now, unix };
        let token = self.authenticate(unix, connect)?.0.id;
        // Without an address all peers would look the same.
        let address = connect.remote.map(|address| address.to_canonical());
        if address.is_some_and(|address| !self.limits.take(now, address, token)) {
            return Err(Refused::RateLimited);
        }

        self.admit(socket, connect)
    }

    pub(super) fn admit(
        &mut self,
        socket: SocketId,
        connect: &Connect,
    ) -> Result<Admission, Refused> {
        let Clock { now, unix } = self.clock;
        let (token, entrance) = self.authenticate(unix, connect)?;
        let (token, token_ends_at) = (token.id, token.expires_at);
        let remote_ip = connect.remote.map(|address| address.to_canonical());

        let who = match entrance {
            Entrance::Client(actor) => {
                let key = public_key(connect)?;
                let version = agent(connect).ok_or(Refused::InvalidParameter {
                    parameter: "user-agent",
                    problem: "it names no program that is known here, as in `Linux/6.1 headless-client/1.5.12`",
                })?;
                let version = Version::parse(version);
                let id = self.admit_client(actor, connect)?;
                let session = ClientSession {
                    socket,
                    actor,
                    token,
                    token_ends_at,
                    key,
                    version,
                    remote_ip,
                    joined: false,
                    sees_until: None,
                    interface: None,
                    resources: Default::default(),
                    held: Default::default(),
                };
                self.clients.insert(id, session);
                // It may have been elsewhere before.
                self.judge_grants_of(id);
                Who::Client(id)
            }
            Entrance::Gateway(site) => {
                let key = public_key(connect)?;
                let id = match self.admit_gateway(site, connect)? {
                    Entry::Free(id) => id,
                    Entry::Held(id, old) => {
                        self.ask_old(id, old, (socket, connect.clone()))?;
                        return Ok(Admission::Waiting);
                    }
                };
                let session = GatewaySession {
                    socket,
                    site,
                    key,
                    version: agent(connect).and_then(Version::parse),
                    remote_ip,
                    joined: false,
                    held: Default::default(),
                };
                self.gateways.insert(id, session);
                Who::Gateway(id)
            }
            Entrance::Relay => Who::Relay(relay_addresses(connect)?, None),
        };

        let dialect = Dialect {
            generation: connect.generation,
            framing: connect.framing,
            join: None,
        };
        let entry = Socket {
            who,
            dialect,
            token,
            token_ends_at,
            last_heard_at: now,
        };
        self.sockets.insert(socket, entry);
        self.token_ends.extend(token_ends_at.map(|at| (at, socket)));
        self.idle_check_at.get_or_insert(now + IDLE_AFTER);

        Ok(Admission::Opened)
    }

    /// Whether the token in `connect` opens the socket it wants, at `unix` (seconds).
    ///
    /// # Errors
    ///
    /// [`Refused::MissingToken`] and [`Refused::InvalidToken`].
    pub fn check_token(&self, unix: u64, connect: &Connect) -> Result<(), Refused> {
        self.authenticate(unix, connect).map(drop)
    }

    fn authenticate(&self, unix: u64, connect: &Connect) -> Result<(&Token, Entrance), Refused> {
        let text = connect.token.as_ref().ok_or(Refused::MissingToken)?;
        let shown = Shown::parse(text).ok_or(Refused::InvalidToken)?;
        let token = (self.directory.tokens().get(&shown.id()))
            .filter(|token| shown.is(token) && token.is_usable(unix))
            .ok_or(Refused::InvalidToken)?;

        let entrance = match (connect.role, token.kind) {
            (Role::Client, TokenKind::Client(actor)) => Entrance::Client(actor),
            (Role::Gateway, TokenKind::Gateway(site)) => Entrance::Gateway(site),
            (Role::Relay, TokenKind::Relay) => Entrance::Relay,
            (Role::Client | Role::Gateway | Role::Relay, _) => return Err(Refused::InvalidToken),
        };

        Ok((token, entrance))
    }

    fn admit_client(&mut self, actor: ActorId, connect: &Connect) -> Result<ClientId, Refused> {
        let (external_id, name) = identity(connect)?;
        let known = self.directory.client_of(actor, external_id).cloned();
        let client = match known {
            Some(client) if client.device.name == name => client,
            Some(mut client) => {
                client.device.name = name.to_owned();
                self.edit(Edit::PutClient(client.clone()));
                client
            }
            None => {
                let device = self.new_device(external_id, name)?;
                let id = ClientId(self.new_id());
                let client = Client {
                    id,
                    actor,
                    verified: false,
                    device,
                };
                self.edit(Edit::PutClient(client.clone()));
                client
            }
        };
        // Its old socket may be half dead. It is closed plainly: the token is as good as before.
        if let Some(old) = self.clients.get(&client.id) {
            self.close(old.socket, Goodbye::Replaced);
        }

        Ok(client.id)
    }

    fn admit_gateway(&mut self, site: SiteId, connect: &Connect) -> Result<Entry, Refused> {
        let (external_id, name) = identity(connect)?;
        let known = self.directory.gateway_of(site, external_id).cloned();
        if let Some(gateway) = known.as_ref().map(|known| known.id)
            && let Some(old) = self.gateways.get(&gateway).map(|session| session.socket)
        {
            let last_heard_at = self.sockets.get(&old).map(|entry| entry.last_heard_at);
            if last_heard_at.is_some_and(|at| self.clock.now < at + DEAD_AFTER) {
                return Ok(Entry::Held(gateway, old));
            }
            self.close(old, Goodbye::Replaced);
        }

        let gateway = match known {
            Some(gateway) if gateway.device.name == name => gateway,
            Some(mut gateway) => {
                gateway.device.name = name.to_owned();
                self.edit(Edit::PutGateway(gateway.clone()));
                gateway
            }
            None => {
                let device = self.new_device(external_id, name)?;
                let id = GatewayId(self.new_id());
                let gateway = Gateway { id, site, device };
                self.edit(Edit::PutGateway(gateway.clone()));
                gateway
            }
        };

        Ok(Entry::Free(gateway.id))
    }

    fn new_device(&mut self, external_id: &str, name: &str) -> Result<Device, Refused> {
        let addresses = (self.directory.free_addresses()).ok_or(Refused::NoAddressLeft)?;
        let mut psk_base = [0; 32];
        self.random.fill_bytes(&mut psk_base);

        Ok(Device {
            external_id: external_id.to_owned(),
            name: name.to_owned(),
            addresses,
            psk_base: PskBase::new(psk_base),
        })
    }
}

fn identity(connect: &Connect) -> Result<(&str, &str), Refused> {
    let external_id = text("external_id", connect.external_id.as_deref())?;
    let name = text("name", connect.name.as_deref())?;

    Ok((external_id, name))
}

/// The version of the program that a peer says it is, as it came.
fn agent(connect: &Connect) -> Option<&str> {
    version::of_agent(connect.user_agent.as_deref()?)
}

fn text<'a>(parameter: &'static str, value: Option<&'a str>) -> Result<&'a str, Refused> {
    let problem = match value {
        None | Some("") => "it is missing",
        Some(value) if value.len() > MAX_TEXT => "it is longer than 255 bytes",
        Some(value) if value.contains(char::is_control) => "it contains control characters",
        Some(value) => return Ok(value),
    };

    Err(Refused::InvalidParameter { parameter, problem })
}

fn public_key(connect: &Connect) -> Result<PublicKey, Refused> {
    let parameter = "public_key";
    let value = text(parameter, connect.public_key.as_deref())?;
    let problem = "it is not the base64 of 32 bytes";

    value
        .parse()
        .map_err(|_| Refused::InvalidParameter { parameter, problem })
}

fn relay_addresses(connect: &Connect) -> Result<RelayAddresses, Refused> {
    let invalid = |parameter, problem| Refused::InvalidParameter { parameter, problem };
    let ipv4 = match connect.ipv4.as_deref() {
        None => None,
        Some(value) => {
            let address = value.parse().ok();
            Some(address.ok_or_else(|| invalid("ipv4", "it is not an IPv4 address"))?)
        }
    };
    let ipv6 = match connect.ipv6.as_deref() {
        None => None,
        Some(value) => {
            let address = value.parse().ok();
            Some(address.ok_or_else(|| invalid("ipv6", "it is not an IPv6 address"))?)
        }
    };
    if ipv4.is_none() && ipv6.is_none() {
        return Err(invalid("ipv4", "a relay needs `ipv4` or `ipv6`, or both"));
    }
    let port = match connect.port.as_deref() {
        None => DEFAULT_RELAY_PORT,
        Some(value) => (value.parse().ok().filter(|port| *port != 0))
            .ok_or_else(|| invalid("port", "it is not a port number"))?,
    };

    Ok(RelayAddresses { ipv4, ipv6, port })
}
