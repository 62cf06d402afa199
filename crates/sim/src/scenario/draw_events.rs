//! What disturbs a drawn world.

use std::time::Duration;

use super::draw::{link, place};
use super::events::{Attack, Event, Gone};
use super::{Choices, EdgeKind, Role, Scenario};

/// When the first disturbance comes at the earliest: connections are up by then.
const FIRST_AT: u64 = 3_000;

/// Everything that attackers do.
const ATTACKS: [Attack; 7] = [
    Attack::Replay,
    Attack::ReplayElsewhere,
    Attack::Garbage,
    Attack::Stun,
    Attack::Handshakes,
    Attack::Turn,
    Attack::Flood,
];

/// How often strangers come to a relay, and after which time: what they ask for takes more than one datagram.
const ROUNDS: u32 = 4;
const ROUND: Duration = Duration::from_millis(250);

/// Lets something happen, or nothing.
pub(super) fn disturb(scenario: &mut Scenario, choices: &mut Choices<'_>) {
    let mut at = choices.range(FIRST_AT..5_000);
    for _ in 0..choices.below(8) / 3 {
        if Duration::from_millis(at) + Duration::from_secs(4) < scenario.lasts {
            one(scenario, choices, Duration::from_millis(at));
        }
        at += choices.range(1_500..5_000);
    }
}

/// Whom a disturbance may hit, one of each kind.
struct Victims {
    client: usize,
    gateway: usize,
    relay: usize,
    /// A client or a gateway.
    node: usize,
    any: usize,
}

impl Victims {
    fn choose(scenario: &Scenario, choices: &mut Choices<'_>) -> Self {
        let hosts = scenario.hosts.iter().enumerate();
        let of = |is_meant: fn(&Role) -> bool| -> Vec<usize> {
            let meant = hosts.clone().filter(|(_, host)| is_meant(&host.role));
            meant.map(|(number, _)| number).collect()
        };
        let clients = of(|role| matches!(role, Role::Client { .. }));
        let gateways = of(|role| matches!(role, Role::Gateway { .. }));
        let relays = of(|role| matches!(role, Role::Relay));
        let nodes = [&clients[..], &gateways[..]].concat();
        let mut one = |list: &[usize]| list.get(choices.index(list.len())).copied().unwrap_or(0);

        Self {
            client: one(&clients),
            gateway: one(&gateways),
            relay: one(&relays),
            node: one(&nodes),
            any: choices.index(scenario.hosts.len()),
        }
    }
}

fn one(scenario: &mut Scenario, choices: &mut Choices<'_>, at: Duration) {
    let victims = Victims::choose(scenario, choices);
    let soon = at + choices.millis(0..3_000);
    let events = match choices.below(18) {
        0..3 => roam(scenario, choices, victims.node, (at, soon)),
        kind @ 3..9 => loss(choices, kind, &victims, (at, soon)),
        9 | 10 => path(scenario, choices, &victims, at),
        kind @ 11..14 => portal(choices, kind, victims.node, (at, soon)),
        kind => rest(scenario, choices, kind, &victims, (at, soon)),
    };
    scenario.events.extend(events);
}

type Events = Vec<(Duration, Event)>;

/// A node gets another network.
fn roam(
    scenario: &mut Scenario,
    choices: &mut Choices<'_>,
    host: usize,
    (at, soon): (Duration, Duration),
) -> Events {
    let is_cut_off = choices.percent(70);
    // Another one each time: no two NATs have one address.
    let number = u8::try_from(100 + host + scenario.edges.len() * 8).unwrap_or(u8::MAX);
    let place = place(scenario, choices, number, true);
    let detach = is_cut_off.then_some((at, Event::Detach { host }));

    detach
        .into_iter()
        .chain([(soon, Event::Attach { host, place })])
        .collect()
}

/// Something ends, and may begin again.
fn loss(
    choices: &mut Choices<'_>,
    kind: u64,
    victims: &Victims,
    (at, soon): (Duration, Duration),
) -> Events {
    let how = if choices.percent(50) {
        Gone::Stopped
    } else {
        Gone::Killed
    };
    let keeps_secret = choices.percent(50);
    let (relay, later) = (victims.relay, soon + Duration::from_secs(1));
    let (host, how, back_at, is_back) = match kind {
        3 | 4 => (relay, Gone::Killed, soon, true),
        5 => {
            let (down, up) = (
                Event::PortalDown { host: relay },
                Event::PortalUp { host: relay },
            );
            return vec![(at, down), (soon, up)];
        }
        6 | 7 => (victims.gateway, how, later, choices.percent(60)),
        _ => (victims.client, how, later, true),
    };
    let back = is_back.then_some((back_at, Event::Start { host, keeps_secret }));

    [(at, Event::End { host, how })]
        .into_iter()
        .chain(back)
        .collect()
}

/// The direct path is gone, or what a NAT knows of it.
fn path(scenario: &Scenario, choices: &mut Choices<'_>, victims: &Victims, at: Duration) -> Events {
    let edges = scenario.edges.iter().enumerate();
    let nats = edges.filter(|(_, edge)| matches!(edge.kind, EdgeKind::Nat(_)));
    let nats: Vec<usize> = nats.map(|(number, _)| number).collect();
    let nat = nats.get(choices.index(nats.len()));
    match nat.filter(|_| choices.percent(50)) {
        Some(edge) => vec![(at, Event::Forget { edge: *edge })],
        None => {
            let hosts = [victims.client, victims.gateway];
            let until = at + choices.millis(500..6_000);
            vec![
                (at, Event::Block { hosts }),
                (until, Event::Unblock { hosts }),
            ]
        }
    }
}

/// The portal is away for one, or for all.
fn portal(
    choices: &mut Choices<'_>,
    kind: u64,
    host: usize,
    (at, soon): (Duration, Duration),
) -> Events {
    match kind {
        11 => vec![
            (at, Event::PortalDown { host }),
            (soon, Event::PortalUp { host }),
        ],
        12 => vec![
            (at, Event::PortalHangs { host }),
            (soon, Event::PortalGoesOn { host }),
        ],
        _ => {
            let after = choices.millis(10..3_000);
            vec![(at, Event::PortalRestarts { after })]
        }
    }
}

fn rest(
    scenario: &Scenario,
    choices: &mut Choices<'_>,
    kind: u64,
    victims: &Victims,
    (at, soon): (Duration, Duration),
) -> Events {
    match kind {
        14 => {
            let (host, time) = (victims.node, choices.millis(100..4_000));
            vec![(at, Event::Suspend { host, time })]
        }
        15 => {
            let (host, resource) = (victims.client, choices.index(scenario.resources.len()));
            let back_at = soon + Duration::from_millis(500);
            let back = choices
                .percent(50)
                .then_some((back_at, Event::Allow { host, resource }));
            [(at, Event::Revoke { host, resource })]
                .into_iter()
                .chain(back)
                .collect()
        }
        16 => {
            let attack = ATTACKS[choices.index(ATTACKS.len())];
            let count = 1 + u32::try_from(choices.below(200)).unwrap_or_default();
            let (host, rounds) = match attack {
                Attack::Turn | Attack::Flood => (victims.relay, ROUNDS),
                Attack::Replay
                | Attack::ReplayElsewhere
                | Attack::Garbage
                | Attack::Stun
                | Attack::Handshakes => (victims.any, 1),
            };
            let event = Event::Attack {
                host,
                attack,
                count,
            };
            let rounds = (0..rounds).map(|round| (at + ROUND * round, event.clone()));
            rounds.collect()
        }
        _ => match choices.below(3) {
            0 => vec![(at, Event::ClockSteps { seconds: 3_600 })],
            1 => vec![(at, Event::ClockSteps { seconds: -3_600 })],
            _ => {
                let (host, link) = (victims.any, link(choices, false));
                vec![(at, Event::Link { host, link })]
            }
        },
    }
}
