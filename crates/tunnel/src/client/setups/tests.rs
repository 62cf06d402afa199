//! client.md §7 and §15.5.

use std::time::{Duration, Instant};

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::control::NatStatus::{Active, Inactive};
use connlib_wire::dns::Name;
use connlib_wire::ip;
use connlib_wire::offload::VirtioHeader;
use connlib_wire::super_packet::SuperPacket;

use super::{Gate, Key, Setups};

struct World {
    setups: Setups,
    now: Instant,
    pool: Pool,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    fn new() -> Self {
        Self {
            setups: Setups::default(),
            now: Instant::now(),
            pool: Pool::new(2_048, 4),
        }
    }

    fn send(&mut self, number: u8, key: &Key) -> Gate {
        let ends = (
            "100.64.0.1:4000".parse().unwrap(),
            "100.96.0.1:80".parse().unwrap(),
        );
        let packet = ip::udp(&self.pool, ends.0, ends.1, &[number]).unwrap();
        let mut packet = SuperPacket::parse(VirtioHeader::default(), packet.into_inner()).unwrap();
        self.setups.gate(self.now, key, &mut packet, &self.pool)
    }

    fn refresh(&mut self, key: &Key) -> bool {
        self.setups.refresh(self.now, key.clone())
    }

    fn after(&mut self, millis: u64) -> (usize, usize) {
        self.now += Duration::from_millis(millis);
        let (again, unanswered) = self.setups.due(self.now);
        (again.len(), unanswered.len())
    }
}

fn key(name: &str) -> Key {
    Key {
        gateway: "66666666-7777-4888-9999-aaaaaaaaaaaa".parse().unwrap(),
        resource: "8f3b2c1a-0d4e-4f5a-9b6c-7d8e9fa0b1c2".parse().unwrap(),
        name: Name::parse(name).unwrap(),
    }
}

fn numbers(packets: impl IntoIterator<Item = Buffer>) -> Vec<u8> {
    packets
        .into_iter()
        .map(|packet| *packet.last().unwrap())
        .collect()
}

#[test]
fn packets_wait_for_the_first_answer_and_leave_once_and_in_order() {
    let (mut world, wiki) = (World::new(), key("wiki.corp.test"));
    assert_eq!(world.send(1, &wiki), Gate::Tell);
    assert_eq!(world.send(2, &wiki), Gate::Held);
    assert_eq!(world.send(2, &wiki), Gate::Held, "a retransmission");
    assert_eq!(numbers(world.setups.handle_status(&wiki, Active)), [1, 2]);
    assert_eq!(world.send(3, &wiki), Gate::Pass);
    assert!(world.setups.handle_status(&wiki, Active).is_empty());
}

#[test]
fn a_gateway_is_told_again_after_two_seconds_and_given_up_after_thirty() {
    let (mut world, wiki) = (World::new(), key("wiki.corp.test"));
    world.send(1, &wiki);
    assert!(!world.refresh(&wiki));
    assert_eq!(world.after(1_999), (0, 0));
    assert_eq!(world.after(1), (1, 0));
    assert_eq!(world.after(2_000), (1, 0), "four seconds in");
    assert_eq!(world.after(3_999), (0, 0));
    assert_eq!(world.after(1), (1, 0));
    assert_eq!(world.after(8_000), (1, 0));
    assert_eq!(world.after(8_000), (1, 0));
    assert_eq!(
        world.setups.poll_timeout(),
        Some(world.now + Duration::from_secs(6))
    );
    assert_eq!(world.after(6_000), (0, 1));
    assert_eq!(world.setups.poll_timeout(), None);
    assert_eq!(world.send(2, &wiki), Gate::Tell, "it starts over");
}

#[test]
fn questions_tell_at_once_but_not_more_often_than_every_two_seconds() {
    let (mut world, wiki) = (World::new(), key("wiki.corp.test"));
    assert!(world.refresh(&wiki));
    assert!(!world.refresh(&wiki));
    world.now += Duration::from_secs(2);
    assert!(world.refresh(&wiki));
    assert_eq!(world.after(1_999), (0, 0));
    assert_eq!(world.after(1), (1, 0));
}

#[test]
fn what_flows_goes_on_while_addresses_are_looked_up_anew() {
    let (mut world, wiki) = (World::new(), key("wiki.corp.test"));
    world.refresh(&wiki);
    world.setups.handle_status(&wiki, Active);
    assert!(world.refresh(&wiki));
    assert_eq!(world.send(1, &wiki), Gate::Pass);
    world.setups.handle_status(&wiki, Active);
    assert_eq!(world.send(2, &wiki), Gate::Pass);
}

#[test]
fn a_name_that_fails_is_tried_again_by_its_own_questions_alone() {
    let (mut world, wiki) = (World::new(), key("wiki.corp.test"));
    world.send(1, &wiki);
    assert_eq!(numbers(world.setups.handle_status(&wiki, Inactive)), [1]);
    assert_eq!(world.send(2, &wiki), Gate::Pass, "the gateway says why");

    assert!(world.refresh(&key("git.corp.test")));
    assert_eq!(world.send(3, &wiki), Gate::Pass);
    assert!(world.refresh(&wiki));
    assert_eq!(world.send(4, &wiki), Gate::Held);
    assert_eq!(numbers(world.setups.handle_status(&wiki, Active)), [4]);
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing_and_resources_are_told_apart() {
    let (mut world, wiki) = (World::new(), key("wiki.corp.test"));
    assert!(world.setups.handle_status(&wiki, Active).is_empty());
    assert_eq!(world.send(1, &wiki), Gate::Tell);
    let other = Key {
        resource: "9f3b2c1a-0d4e-4f5a-9b6c-7d8e9fa0b1c2".parse().unwrap(),
        ..wiki.clone()
    };
    assert_eq!(world.send(2, &other), Gate::Tell);
    assert_eq!(numbers(world.setups.handle_status(&other, Active)), [2]);
    assert_eq!(world.send(3, &wiki), Gate::Held);
    // It may take back what it said.
    world.setups.handle_status(&other, Inactive);
    assert_eq!(world.send(4, &other), Gate::Pass);
}

#[test]
fn a_lost_gateway_or_resource_gives_back_what_waited() {
    let (mut world, wiki) = (World::new(), key("wiki.corp.test"));
    world.send(1, &wiki);
    world.refresh(&key("git.corp.test"));
    let forgotten = world.setups.forget_gateway(wiki.gateway);
    assert_eq!(forgotten.len(), 2);
    assert_eq!(
        numbers(forgotten.into_iter().flat_map(|(_, held)| held)),
        [1]
    );
    assert_eq!(world.setups.poll_timeout(), None);

    world.send(2, &wiki);
    let forgotten = world.setups.forget_resource(wiki.resource);
    assert_eq!(
        numbers(forgotten.into_iter().flat_map(|(_, held)| held)),
        [2]
    );
}

#[test]
fn of_very_many_names_only_those_in_use_are_told() {
    let mut world = World::new();
    let mut told = 0;
    for number in 0..2_000 {
        told += usize::from(world.refresh(&key(&format!("n{number}.corp.test"))));
    }
    assert_eq!(told, 512);
    assert_eq!(
        world.send(1, &key("n1999.corp.test")),
        Gate::Tell,
        "this one is used"
    );

    let mut again = 0;
    for _ in 0..20 {
        let (more, _) = world.after(200);
        assert!(more <= 64);
        again += more;
    }
    assert!(again >= 513, "{again}");
    for number in 0..512 {
        world
            .setups
            .handle_status(&key(&format!("n{number}.corp.test")), Active);
    }
    assert!(world.refresh(&key("n600.corp.test")));
}

#[test]
fn a_hundred_and_twenty_eight_packets_wait_and_the_oldest_gives_way() {
    let (mut world, wiki) = (World::new(), key("wiki.corp.test"));
    for number in 0..130 {
        world.send(number, &wiki);
    }
    let held = numbers(world.setups.handle_status(&wiki, Active));
    assert_eq!(held, (2..130).collect::<Vec<_>>());
}
