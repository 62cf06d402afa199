#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rand::SeedableRng as _;

use super::*;

const INNER: &str = "192.168.1.2:5000";
const ONE: &str = "198.51.100.1:1";
const ONE_ELSEWHERE: &str = "198.51.100.1:2";
const TWO: &str = "198.51.100.2:1";

const EXPIRY: Duration = Duration::from_secs(60);

/// A NAT, a clock, and chance.
struct Rig {
    edge: Edge,
    now: Instant,
    rng: StdRng,
}

impl Rig {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has to begin at some time"
    )]
    fn new(mapping: Dependence, filtering: Dependence, keeps_ports: bool) -> Self {
        let nat = Nat {
            ip4: [203, 0, 113, 1].into(),
            mapping,
            filtering,
            expiry: EXPIRY,
            keeps_ports,
            hairpin: false,
        };
        let plan = Plan {
            name: "N1".to_owned(),
            kind: EdgeKind::Nat(nat),
            behind: None,
        };

        Self {
            edge: Edge::new(&plan),
            now: Instant::now(),
            rng: StdRng::seed_from_u64(1),
        }
    }

    fn leave(&mut self, from: &str, to: &str) -> SocketAddr {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        self.edge.leave(self.now, from, to, &mut self.rng).unwrap()
    }

    fn enter(&self, from: &str, to: SocketAddr) -> Option<SocketAddr> {
        self.edge.enter(self.now, from.parse().unwrap(), to)
    }
}

#[test]
fn mappings_depend_on_what_they_are_told_to() {
    for (mapping, same) in [
        (Dependence::Endpoint, [true, true]),
        (Dependence::Address, [true, false]),
        (Dependence::AddressAndPort, [false, false]),
    ] {
        let mut rig = Rig::new(mapping, Dependence::Endpoint, false);
        let first = rig.leave(INNER, ONE);
        assert_eq!(rig.leave(INNER, ONE), first);
        let others = [rig.leave(INNER, ONE_ELSEWHERE), rig.leave(INNER, TWO)];
        assert_eq!(others.map(|other| other == first), same, "{mapping:?}");
    }
}

#[test]
fn filters_let_in_whom_they_know() {
    for (filtering, lets_in) in [
        (Dependence::Endpoint, [true, true, true]),
        (Dependence::Address, [true, true, false]),
        (Dependence::AddressAndPort, [true, false, false]),
    ] {
        let mut rig = Rig::new(Dependence::Endpoint, filtering, false);
        let outer = rig.leave(INNER, ONE);
        let entered = [ONE, ONE_ELSEWHERE, TWO].map(|from| rig.enter(from, outer).is_some());
        assert_eq!(entered, lets_in, "{filtering:?}");
        assert_eq!(rig.enter(ONE, outer), Some(INNER.parse().unwrap()));
    }
}

#[test]
fn a_mapping_ends_when_nothing_leaves_through_it() {
    let mut rig = Rig::new(Dependence::Endpoint, Dependence::Endpoint, false);
    let outer = rig.leave(INNER, ONE);
    rig.now += EXPIRY;
    assert!(rig.enter(ONE, outer).is_some());
    rig.leave(INNER, ONE);
    rig.now += EXPIRY;
    assert!(rig.enter(ONE, outer).is_some());
    rig.now += Duration::from_millis(1);
    assert!(rig.enter(ONE, outer).is_none());
    assert_ne!(rig.leave(INNER, ONE), outer);
}

#[test]
fn ports_are_kept_where_they_are_free() {
    let mut rig = Rig::new(Dependence::Endpoint, Dependence::Endpoint, true);
    assert_eq!(rig.leave(INNER, ONE).port(), 5_000);
    assert_ne!(rig.leave("192.168.1.3:5000", ONE).port(), 5_000);
}
