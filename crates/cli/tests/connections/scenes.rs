//! The scenes, in the order they are played.

mod gateways;
mod idle;
mod moving;
mod opening;
mod portal;
mod relays;

use crate::figures::Table;

/// Something that happens to connections.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) play: fn(&mut Table),
}

pub(crate) const ALL: &[Scene] = &[
    Scene {
        name: "first_reply_direct",
        play: opening::first_reply_direct,
    },
    Scene {
        name: "first_reply_relayed",
        play: opening::first_reply_relayed,
    },
    Scene {
        name: "direct_way_closes_and_opens",
        play: opening::direct_way_closes_and_opens,
    },
    Scene {
        name: "client_moves",
        play: moving::client_moves,
    },
    Scene {
        name: "gateway_moves",
        play: moving::gateway_moves,
    },
    Scene {
        name: "family_goes",
        play: moving::family_goes,
    },
    Scene {
        name: "relay_killed",
        play: relays::relay_killed,
    },
    Scene {
        name: "relay_restarted",
        play: relays::relay_restarted,
    },
    Scene {
        name: "gateway_stopped",
        play: gateways::gateway_stopped,
    },
    Scene {
        name: "gateway_killed",
        play: gateways::gateway_killed,
    },
    Scene {
        name: "portal_restarted",
        play: portal::portal_restarted,
    },
    Scene {
        name: "thousand_idle_connections",
        play: idle::thousand_idle_connections,
    },
];
