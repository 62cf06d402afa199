//! Where clients and gateways differ.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_os::netlink::QueueLimits;
use connlib_os::resolver;
use connlib_tunnel::client::{self, Client, NameRecord};
use connlib_tunnel::dns::Server;
use connlib_tunnel::gateway::{self, Gateway};
use connlib_tunnel::{Settings, Status};
use connlib_wire::key::PublicKey;
use connlib_wire::portal::client::AuthorizationCreationFailed;
use connlib_wire::portal::{self, turn};

use super::host_names::DnsControl;
use super::interface::Wanted;
use super::notices::Relays;
use crate::event_loop::Core;
use crate::handle::Watched;
use crate::uplink::{self, Protocol};

/// How many packets wait in the device at most: two milliseconds of full ones at 5 Gbit/s. Each turn of the loop empties it, so
/// that nothing stands there while the loop runs (limits.md: what waits should wait with us); it has to hold what comes while
/// other programs have the processor, for about three milliseconds each. Half as many lost 0.5 % of 1.4 Gbit/s (measured).
const PACKETS: u32 = 1_000;

/// A stream that begins on this machine: a super-packet is to be one train, which holds 49 datagrams of the largest kind
/// (limits.md, lesson 2).
const OWN_STREAMS: QueueLimits = QueueLimits {
    packets: PACKETS,
    gso_bytes: 61_000,
    gso_segments: 49,
};

/// A stream that is forwarded: one that exceeds the device's limits would come apart into single packets.
const FORWARDED_STREAMS: QueueLimits = QueueLimits {
    packets: PACKETS,
    gso_bytes: 65_536,
    gso_segments: 65_535,
};

/// A role with a TUN device.
pub(crate) trait Role: Send + 'static {
    /// Its state machine.
    type Core: Core<
            FromPortal = <Self::Protocol as Protocol>::FromPortal,
            ToPortal = <Self::Protocol as Protocol>::ToPortal,
            Event: Send,
            Status = Status,
            Packets: Send,
            Lane: Send,
            Job: Send,
        > + Send
        + 'static;
    /// What it says to the portal.
    type Protocol: Protocol;

    const NAME: &'static str;
    const DATA_THREAD: &'static str;
    const CONTROL_THREAD: &'static str;
    /// What may wait in the TUN device, and how large its super-packets are.
    const QUEUE: QueueLimits;
    /// Whether packets of the tunnel are passed on by the machine.
    const FORWARDS: bool;

    fn core(now: Instant, seed: [u8; 32], unix: Duration) -> Self::Core;
    /// Gives a new core the names that an earlier one has given addresses to.
    fn restore_names(core: &mut Self::Core, records: &[NameRecord]);
    /// Names that were given addresses.
    fn assigned_names(event: &<Self::Core as Core>::Event) -> &[NameRecord];
    /// Lets those who watch see what an event changed.
    fn show(event: &<Self::Core as Core>::Event, watched: &Watched);
    /// The servers over HTTPS that count from now on, if an event tells of them.
    fn https_servers(event: &<Self::Core as Core>::Event) -> Option<&[Server]>;
    /// How programs here are made to ask us, given what was asked for.
    fn dns(asked_for: DnsControl) -> DnsControl;
    fn public_key(core: &Self::Core) -> PublicKey;
    fn interface(event: &<Self::Core as Core>::Event) -> Option<Wanted>;
    fn new_key(event: &<Self::Core as Core>::Event) -> Option<PublicKey>;
    /// The access that a message refuses, if that is what it does.
    fn refusal(message: &<Self::Core as Core>::FromPortal) -> Option<&AuthorizationCreationFailed>;
    /// The relays that a message names, if that is what it does.
    fn relays(message: &<Self::Core as Core>::FromPortal) -> Option<Relays>;
}

pub(crate) struct OfClient;

impl Role for OfClient {
    type Core = Client;
    type Protocol = uplink::OfClient;

    const NAME: &'static str = "client";
    const DATA_THREAD: &'static str = "client data";
    const CONTROL_THREAD: &'static str = "client control";
    const QUEUE: QueueLimits = OWN_STREAMS;
    const FORWARDS: bool = false;

    fn core(now: Instant, seed: [u8; 32], unix: Duration) -> Client {
        Client::new(now, seed, Settings { unix })
    }

    fn restore_names(core: &mut Client, records: &[NameRecord]) {
        let mut left_out = 0_usize;
        for record in records {
            if let Err(error) = core.restore_name(record) {
                tracing::debug!(%error, "A name of an earlier run is left out");
                left_out += 1;
            }
        }
        if left_out > 0 {
            tracing::info!(count = left_out, "Names of an earlier run are left out");
        }
    }

    fn assigned_names(event: &client::Event) -> &[NameRecord] {
        match event {
            client::Event::NamesAssigned(records) => records,
            client::Event::InterfaceChanged(_)
            | client::Event::ResourcesChanged(_)
            | client::Event::KeyChanged(_)
            | client::Event::HttpsServersChanged(_)
            | _ => &[],
        }
    }

    fn show(event: &client::Event, watched: &Watched) {
        if let client::Event::ResourcesChanged(resources) = event {
            watched.resources.send_replace(resources.clone());
        } else if let client::Event::InterfaceChanged(interface) = event {
            watched.interface.send_replace(Some(interface.clone()));
        }
    }

    fn https_servers(event: &client::Event) -> Option<&[Server]> {
        let client::Event::HttpsServersChanged(servers) = event else {
            return None;
        };

        Some(servers)
    }

    fn dns(asked_for: DnsControl) -> DnsControl {
        asked_for
    }

    fn public_key(core: &Client) -> PublicKey {
        core.public_key()
    }

    fn interface(event: &client::Event) -> Option<Wanted> {
        let client::Event::InterfaceChanged(interface) = event else {
            return None;
        };

        Some(Wanted {
            ipv4: interface.ipv4,
            ipv6: interface.ipv6,
            routes: interface.routes.clone(),
            names: resolver::Wanted {
                servers: interface.name_servers.clone(),
                search: interface.search_domain.clone(),
            },
        })
    }

    fn new_key(event: &client::Event) -> Option<PublicKey> {
        let client::Event::KeyChanged(key) = event else {
            return None;
        };

        Some(*key)
    }

    fn refusal(message: &portal::client::FromPortal) -> Option<&AuthorizationCreationFailed> {
        let portal::client::FromPortal::AuthorizationCreationFailed(failed) = message else {
            return None;
        };

        Some(failed)
    }

    fn relays(message: &portal::client::FromPortal) -> Option<Relays> {
        use portal::client::FromPortal;

        if let FromPortal::Init(init) = message {
            Some(Relays::All(addresses(&init.relays)))
        } else if let FromPortal::RelaysPresence(presence) = message {
            Some(Relays::More(addresses(&presence.connected)))
        } else {
            None
        }
    }
}

pub(crate) struct OfGateway;

impl Role for OfGateway {
    type Core = Gateway;
    type Protocol = uplink::OfGateway;

    const NAME: &'static str = "gateway";
    const DATA_THREAD: &'static str = "gateway data";
    const CONTROL_THREAD: &'static str = "gateway ctrl";
    const QUEUE: QueueLimits = FORWARDED_STREAMS;
    const FORWARDS: bool = true;

    fn core(now: Instant, seed: [u8; 32], unix: Duration) -> Gateway {
        Gateway::new(now, seed, Settings { unix })
    }

    fn restore_names(_: &mut Gateway, _: &[NameRecord]) {}

    fn assigned_names(_: &gateway::Event) -> &[NameRecord] {
        &[]
    }

    fn show(_: &gateway::Event, _: &Watched) {}

    fn https_servers(_: &gateway::Event) -> Option<&[Server]> {
        None
    }

    /// A gateway asks as its machine does, and nobody here asks it.
    fn dns(_: DnsControl) -> DnsControl {
        DnsControl::Off
    }

    fn public_key(core: &Gateway) -> PublicKey {
        core.public_key()
    }

    fn interface(event: &gateway::Event) -> Option<Wanted> {
        let gateway::Event::InterfaceChanged(interface) = event else {
            return None;
        };

        Some(Wanted {
            ipv4: interface.ipv4,
            ipv6: interface.ipv6,
            routes: interface.routes.clone(),
            names: resolver::Wanted {
                servers: Vec::new(),
                search: None,
            },
        })
    }

    fn new_key(event: &gateway::Event) -> Option<PublicKey> {
        let gateway::Event::KeyChanged(key) = event else {
            return None;
        };

        Some(*key)
    }

    fn refusal(_: &portal::gateway::FromPortal) -> Option<&AuthorizationCreationFailed> {
        None
    }

    fn relays(message: &portal::gateway::FromPortal) -> Option<Relays> {
        use portal::gateway::FromPortal;

        if let FromPortal::Init(init) = message {
            Some(Relays::All(addresses(&init.relays)))
        } else if let FromPortal::RelaysPresence(presence) = message {
            Some(Relays::More(addresses(&presence.connected)))
        } else {
            None
        }
    }
}

fn addresses(relays: &[turn::Relay]) -> Vec<IpAddr> {
    let address = |relay: &turn::Relay| {
        if let turn::Relay::Turn(relay) = relay {
            Some(relay.addr.ip())
        } else {
            None
        }
    };

    relays.iter().filter_map(address).collect()
}
