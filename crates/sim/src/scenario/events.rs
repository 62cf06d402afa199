//! What happens in a world, and what is expected of it.

use std::net::IpAddr;
use std::time::Duration;

use super::filters::{Filter, Service};
use super::names::{Address, Lookup, Manners, NameEntry, Target, Upstream};
use super::{Link, PerMille, Place};

/// Something that happens. Hosts, edges, resources and flows are meant by number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A program begins to use the network.
    Flow(Flow),
    /// A host loses its network.
    Detach {
        /// Which.
        host: usize,
    },
    /// A host gets a network, another one perhaps, and its programs are told.
    Attach {
        /// Which.
        host: usize,
        /// Where it is from here on.
        place: Place,
    },
    /// What runs on a host ends.
    End {
        /// Which.
        host: usize,
        /// How.
        how: Gone,
    },
    /// It runs again, and knows nothing of what was before.
    Start {
        /// Which.
        host: usize,
        /// Whether a relay has the secret that it had.
        keeps_secret: bool,
    },
    /// A host's link is another one from here on.
    Link {
        /// Which host.
        host: usize,
        /// What it is like.
        link: Link,
    },
    /// Nothing passes between two hosts directly.
    Block {
        /// The two.
        hosts: [usize; 2],
    },
    /// It does again.
    Unblock {
        /// The two.
        hosts: [usize; 2],
    },
    /// A host's channel to the portal breaks, and can't be made anew.
    PortalDown {
        /// Which.
        host: usize,
    },
    /// It can.
    PortalUp {
        /// Which.
        host: usize,
    },
    /// Nothing comes through a host's channel, and nobody notices.
    PortalHangs {
        /// Which.
        host: usize,
    },
    /// It comes now.
    PortalGoesOn {
        /// Which.
        host: usize,
    },
    /// The portal ends, and begins again later with what it had stored.
    PortalRestarts {
        /// How much later.
        after: Duration,
    },
    /// A host stands still.
    Suspend {
        /// Which.
        host: usize,
        /// How long.
        time: Duration,
    },
    /// The wall clock of the portal and of relays jumps, in seconds.
    ClockSteps {
        /// Forward, or back.
        seconds: i64,
    },
    /// A NAT forgets its mappings.
    Forget {
        /// Which.
        edge: usize,
    },
    /// A client may use a resource.
    Allow {
        /// Which client.
        host: usize,
        /// Which resource.
        resource: usize,
    },
    /// It may not.
    Revoke {
        /// Which client.
        host: usize,
        /// Which resource.
        resource: usize,
    },
    /// A resource stands for something else, or is elsewhere.
    Change {
        /// Which.
        resource: usize,
        /// What it stands for from here on.
        address: Address,
        /// What may pass from here on.
        filters: Vec<Filter>,
        /// Where its gateways are.
        site: String,
    },
    /// A person wants a client to use the Internet resource, or no longer.
    Internet {
        /// Which client.
        host: usize,
        /// Whether it is to.
        is_wanted: bool,
    },
    /// A client that was let in sends what it must not.
    Forge {
        /// Which.
        host: usize,
        /// What.
        forgery: Forgery,
        /// How often.
        count: u32,
    },
    /// Something else is said of a name from here on.
    Name(NameEntry),
    /// A name server behaves in another way from here on.
    Manners {
        /// Which.
        server: usize,
        /// How it behaves.
        manners: Manners,
    },
    /// The system of a host asks others from here on.
    Resolvers {
        /// Which host.
        host: usize,
        /// Whom it asks.
        servers: Vec<IpAddr>,
    },
    /// The portal wants others to be asked.
    Upstream(Upstream),
    /// A person lets a node start over.
    Reset {
        /// Which.
        host: usize,
    },
    /// Somebody sends what they shouldn't.
    Attack {
        /// To whom.
        host: usize,
        /// What.
        attack: Attack,
        /// How often.
        count: u32,
    },
}

/// How something ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gone {
    /// It says goodbye.
    Stopped,
    /// It does not.
    Killed,
}

/// What hostile hosts do. They can read everything and send in anybody's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attack {
    /// Sends what others have sent, in their name.
    Replay,
    /// Sends what others have sent, from elsewhere.
    ReplayElsewhere,
    /// Sends bytes.
    Garbage,
    /// Sends STUN messages, signed with anything, in the name of others.
    Stun,
    /// Sends handshakes that nobody can open.
    Handshakes,
    /// Sends whatever relays are asked for, with wrong credentials, nonces, channels and names, and some with right ones.
    Turn,
    /// Sends data through a relay under a channel of its own, more than it can serve.
    Flood,
}

/// What clients send that must not come out of any gateway, nor reach another client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Forgery {
    /// To resources of their own, by what no filter names as well.
    Filtered,
    /// In the name of others.
    Foreign,
    /// To what they were not let in to.
    Ungranted,
    /// To other clients, through a gateway.
    Neighbour,
    /// ICMP errors about packets that they never got.
    StrayError,
    /// Names that are none of their resources', and packets to what stands for them.
    Name,
    /// Protocols and control messages that there are none of, and packets to nobody.
    Garbage,
}

impl Forgery {
    /// Each, and what it is called.
    pub(crate) const NAMED: [(&'static str, Self); 7] = [
        ("filtered", Self::Filtered),
        ("foreign", Self::Foreign),
        ("ungranted", Self::Ungranted),
        ("neighbour", Self::Neighbour),
        ("stray-error", Self::StrayError),
        ("name", Self::Name),
        ("garbage", Self::Garbage),
    ];
}

/// A program that uses the network.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flow {
    /// Its name.
    pub name: String,
    /// The client it runs on.
    pub host: usize,
    /// Whom it talks to, or asks about.
    pub to: Target,
    /// The port that it sends from; one that nobody else has by default.
    pub port: Option<u16>,
    /// What it uses there.
    pub service: Service,
    /// What it does.
    pub kind: FlowKind,
}

/// What a program does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FlowKind {
    /// Sends requests, each once.
    Ping {
        /// How many.
        count: u32,
        /// The time between two of them.
        every: Duration,
        /// Their payload in bytes.
        size: u16,
    },
    /// Fetches something, and asks again for what is missing.
    Fetch {
        /// How many bytes.
        bytes: u32,
    },
    /// Asks a name server once.
    Lookup(Lookup),
}

/// Which way datagrams go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathWanted {
    /// Without a relay.
    Direct,
    /// Through a relay.
    Relayed,
    /// None.
    None,
}

/// What must come true.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Expectation {
    /// A fetch is complete.
    Complete {
        /// Which flow.
        flow: usize,
        /// Until when.
        by: Duration,
    },
    /// That many requests are answered.
    Answered {
        /// Of which flow.
        flow: usize,
        /// So many at least.
        least: u32,
        /// And at most.
        most: u32,
    },
    /// A client's path to whoever it is connected with.
    Path {
        /// Which client.
        host: usize,
        /// The path.
        path: PathWanted,
        /// When.
        at: Duration,
    },
    /// The path of a client changes that often at most.
    PathChanges {
        /// Which client.
        host: usize,
        /// How often.
        most: u32,
        /// From when on.
        from: Duration,
    },
    /// The longest time between two replies in a row.
    Gap {
        /// Of which flow.
        flow: usize,
        /// How long.
        most: Duration,
        /// From when on.
        from: Duration,
    },
    /// The longest time from a request to its reply.
    Within {
        /// Of which flow.
        flow: usize,
        /// How long.
        most: Duration,
    },
    /// What a name server said.
    Said(Said),
    /// Where the requests of a flow to a name have arrived.
    Reaches {
        /// Which flow.
        flow: usize,
        /// The only address.
        ip: IpAddr,
    },
    /// Fetches get about the same: Jain's index of the pieces that came in a span of time.
    Fair {
        /// Which flows.
        flows: Vec<usize>,
        /// The least that it may be.
        least: PerMille,
        /// From when.
        from: Duration,
        /// Until when.
        until: Duration,
    },
    /// How many datagrams all clients and gateways send in a span of time.
    Quiet {
        /// From when.
        from: Duration,
        /// Until when.
        until: Duration,
        /// How many at most.
        most: u64,
    },
}

/// What a name server must have said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Said {
    /// To which flow.
    pub flow: usize,
    /// The code; `None` for no answer at all.
    pub code: Option<u8>,
    /// How many records.
    pub records: Option<u32>,
    /// One of the addresses.
    pub ip: Option<IpAddr>,
    /// How long it may have taken.
    pub within: Option<Duration>,
}

impl FlowKind {
    /// What a program uses if nothing else is said: echo, or discard.
    pub(crate) fn default_service(&self) -> Service {
        match self {
            Self::Ping { .. } | Self::Lookup(_) => Service::udp(7),
            Self::Fetch { .. } => Service::udp(9),
        }
    }
}
