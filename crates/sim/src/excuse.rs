//! What excuses a request for not being answered in time, each by name and with a budget.
//!
//! A span in which anything goes hides whatever gets worse within it. So each use is counted: a request that was not answered in
//! time, and that nobody is blamed for. Of a million requests, so many may be excused by each.

use std::fmt;

use crate::limits::Kind;

/// Why a request need not have been answered in time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Excuse {
    /// The world ended too early.
    End,
    /// What it could belong to changed meanwhile.
    Changed,
    /// Nobody let its client in, or not for long enough.
    NotLetIn,
    /// There was no way to its gateway, or none for certain.
    NoWay,
    /// Its client's token had ended.
    TokenOver,
    /// Something happened to somebody whom it needed.
    Disturbed(Kind),
    /// The portal was away, and its client had no access yet.
    PortalAway,
    /// Its gateway could not find out where its name leads.
    NameUnknown,
    /// Messages of the portal overtook each other at the first access.
    Disorder,
    /// Copies of others' datagrams led its peer elsewhere.
    LedAway,
    /// Links lose datagrams.
    Lost,
}

impl Excuse {
    /// How many of a million requests it may excuse.
    pub fn budget(self) -> u64 {
        match self {
            Self::End | Self::NotLetIn => 3_000,
            Self::Changed => 12_000,
            Self::NoWay => 500,
            Self::LedAway => 1_500,
            Self::TokenOver => 35_000,
            Self::Disturbed(kind) => budget_of(kind),
            Self::PortalAway => 6_000,
            Self::NameUnknown => 8_000,
            // Channels of drawn worlds keep the order.
            Self::Disorder => 0,
            Self::Lost => 50_000,
        }
    }
}

/// The same for what happens to somebody: about two and a half times what is usual.
fn budget_of(kind: Kind) -> u64 {
    match kind {
        // These are measured, and excuse nothing.
        Kind::FirstReply | Kind::Upgrade => 0,
        Kind::ClientRoam => 35_000,
        Kind::GatewayRoam => 25_000,
        Kind::RelayLoss => 20_000,
        Kind::GatewayStop => 20_000,
        Kind::GatewayKill => 28_000,
        Kind::GatewayBack => 28_000,
        Kind::ClientBack => 9_000,
        Kind::RelayBack => 22_000,
        Kind::PathLoss => 12_000,
        Kind::NatRebind => 12_000,
        Kind::Resume => 12_000,
        Kind::Allowed => 15_000,
        Kind::Revoked => 3_000,
    }
}

impl fmt::Display for Excuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::End => "the end",
            Self::Changed => "resources change",
            Self::NotLetIn => "not let in",
            Self::NoWay => "no way",
            Self::TokenOver => "token over",
            Self::Disturbed(kind) => return kind.fmt(f),
            Self::PortalAway => "portal away",
            Self::NameUnknown => "name unknown",
            Self::Disorder => "disorder",
            Self::LedAway => "led away",
            Self::Lost => "lost on links",
        })
    }
}
