//! How long each kind of disturbance may last, as its own constant.
//!
//! A [`Limit`] has two numbers: the `goal` is what the design promises, `holds` is what every world is held to today. Where
//! they differ, lowering `holds` is what is left to do. Both are without the round trips of the world at hand, which come
//! on top.

use std::fmt;
use std::time::Duration;

/// What disturbs a flow.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// The first packet waits for a connection.
    FirstReply,
    /// A better path takes over from a relayed one.
    Upgrade,
    /// The client gets another network.
    ClientRoam,
    /// The gateway gets another network.
    GatewayRoam,
    /// A relay is gone, and another is there.
    RelayLoss,
    /// The gateway says goodbye, and another is in its site.
    GatewayStop,
    /// The gateway says nothing any more, and another is in its site.
    GatewayKill,
    /// The only gateway comes back, and knows nobody.
    GatewayBack,
    /// The client begins anew.
    ClientBack,
    /// The only relay comes back.
    RelayBack,
    /// Nothing passes on the path in use, and another works.
    PathLoss,
    /// A NAT has forgotten its mappings.
    NatRebind,
    /// A host goes on that stood still.
    Resume,
    /// A client is let in.
    Allowed,
    /// A client is no longer let in.
    Revoked,
}

/// How long something may last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limit {
    /// What is promised.
    pub goal: Duration,
    /// What every world is held to.
    pub holds: Duration,
}

/// The time from the first packet to the first reply, besides round trips, in a world that loses nothing.
pub const FIRST_REPLY: Limit = Limit::of(250, 600);

/// The same in a world that loses up to a fifth: a gateway that says nothing is given five seconds, and two in a row can have lost
/// all that they said.
pub const FIRST_REPLY_LOSSY: Limit = Limit::of(10_000, 16_000);

/// From the relayed path to the direct one.
pub const UPGRADE: Limit = Limit::of(500, 2_500);

/// After the network is back.
pub const CLIENT_ROAM: Limit = Limit::of(1_500, 8_000);

/// After the network is back.
pub const GATEWAY_ROAM: Limit = Limit::of(1_500, 40_000);

/// After the relay is gone.
pub const RELAY_LOSS: Limit = Limit::of(2_000, 25_000);

/// After the goodbye.
pub const GATEWAY_STOP: Limit = Limit::of(500, 3_000);

/// After the last sign of life.
pub const GATEWAY_KILL: Limit = Limit::of(5_000, 25_000);

/// After the gateway is there again.
pub const GATEWAY_BACK: Limit = Limit::of(6_000, 30_000);

/// After the client is there again.
pub const CLIENT_BACK: Limit = Limit::of(1_500, 3_000);

/// After the relay is there again.
pub const RELAY_BACK: Limit = Limit::of(10_000, 30_000);

/// After the last datagram that passed.
pub const PATH_LOSS: Limit = Limit::of(1_000, 30_000);

/// After the mappings are gone.
pub const NAT_REBIND: Limit = Limit::of(1_500, 25_000);

/// After the host goes on.
pub const RESUME: Limit = Limit::of(2_000, 25_000);

/// After a client that lost the portal has it again.
pub const CLIENT_JOINED: Limit = Limit::of(2_000, 2_000);

/// After a gateway that lost the portal has it again: a client that was refused meanwhile asks again after four seconds at most.
pub const GATEWAY_JOINED: Limit = Limit::of(4_000, 4_000);

/// After the policy is there: a client that was refused asks again only after a while.
pub const ALLOWED: Limit = Limit::of(2_000, 6_000);

/// After the policy is gone, besides the portal's delay.
pub const REVOKED: Limit = Limit::of(200, 200);

/// How long after a change of path packets may overtake those that took the old one.
pub const UNSETTLED: Limit = Limit::of(0, 1_000);

/// How long copies of others' datagrams can lead a receiver away: until the next genuine one, or until it finds that nothing comes
/// by where it was led.
pub const LED_AWAY: Limit = Limit::of(1_000, 5_000);

/// From a packet to a name until its gateway can translate it, besides the connection: what tells it the name may be lost, and
/// is told again after two seconds, and then after four.
pub const NAME_KNOWN: Limit = Limit::of(100, 4_500);

/// From a question that the client answers itself to its answer.
pub const ANSWER_OWN: Limit = Limit::of(1, 150);

/// From a question that servers of the client's network are asked to its answer (client.md §4.5).
pub const ANSWER_OUTSIDE: Limit = Limit::of(5_000, 5_500);

/// From a question that goes through the tunnel to its answer (client.md §4.6), once there is access.
pub const ANSWER_INSIDE: Limit = Limit::of(10_000, 10_500);

/// How long a question waits for access before that.
pub const ANSWER_ACCESS: Limit = Limit::of(10_000, 10_500);

/// From a request that reaches a living relay to its answer, however busy it is (testing.md T18).
pub const CONTROL: Limit = Limit::of(5, 1_000);

impl Limit {
    const fn of(goal: u64, holds: u64) -> Self {
        Self {
            goal: Duration::from_millis(goal),
            holds: Duration::from_millis(holds),
        }
    }
}

impl Kind {
    /// How long it may last.
    pub fn limit(self) -> Limit {
        match self {
            Self::FirstReply => FIRST_REPLY,
            Self::Upgrade => UPGRADE,
            Self::ClientRoam => CLIENT_ROAM,
            Self::GatewayRoam => GATEWAY_ROAM,
            Self::RelayLoss => RELAY_LOSS,
            Self::GatewayStop => GATEWAY_STOP,
            Self::GatewayKill => GATEWAY_KILL,
            Self::GatewayBack => GATEWAY_BACK,
            Self::ClientBack => CLIENT_BACK,
            Self::RelayBack => RELAY_BACK,
            Self::PathLoss => PATH_LOSS,
            Self::NatRebind => NAT_REBIND,
            Self::Resume => RESUME,
            Self::Allowed => ALLOWED,
            Self::Revoked => REVOKED,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FirstReply => "first reply",
            Self::Upgrade => "upgrade",
            Self::ClientRoam => "client roams",
            Self::GatewayRoam => "gateway roams",
            Self::RelayLoss => "relay lost",
            Self::GatewayStop => "gateway stops",
            Self::GatewayKill => "gateway killed",
            Self::GatewayBack => "gateway back",
            Self::ClientBack => "client back",
            Self::RelayBack => "relay back",
            Self::PathLoss => "path lost",
            Self::NatRebind => "NAT forgets",
            Self::Resume => "host resumes",
            Self::Allowed => "client let in",
            Self::Revoked => "client shut out",
        })
    }
}
