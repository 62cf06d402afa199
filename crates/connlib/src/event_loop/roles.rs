//! The state machines that the loop is made for.

use std::time::Instant;

use connlib_tunnel::client::{self, Client};
use connlib_tunnel::gateway::{self, Gateway};
use connlib_tunnel::{Packets, PortalState, Status};
use connlib_wire::buffer::Buffer;
use connlib_wire::portal;
use connlib_wire::train::{Arrival, Transmit};

use super::{Core, PacketBatch};

impl PacketBatch for Packets {
    fn packets(&self) -> impl Iterator<Item = &[u8]> {
        self.from(0)
    }

    fn clear(&mut self) {
        self.clear();
    }
}

/// Both roles have the same doors; only the messages differ.
macro_rules! core {
    ($role:ty, $from_portal:ty, $to_portal:ty, $event:ty) => {
        impl Core for $role {
            type FromPortal = $from_portal;
            type ToPortal = $to_portal;
            type Event = $event;
            type Status = Status;
            type Packets = Packets;

            fn handle_message(&mut self, now: Instant, message: Self::FromPortal) {
                self.handle_message(now, message);
            }

            fn handle_portal_state(&mut self, now: Instant, state: PortalState) {
                self.handle_portal_state(now, state);
            }

            fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
                self.handle_packet(now, packet);
            }

            fn handle_arrival(
                &mut self,
                now: Instant,
                arrival: &Arrival<'_>,
                packets: &mut Packets,
            ) {
                self.handle_arrival(now, arrival, packets);
            }

            fn handle_timeout(&mut self, now: Instant) {
                self.handle_timeout(now);
            }

            fn reset(&mut self, now: Instant) {
                self.reset(now);
            }

            fn shut_down(&mut self, now: Instant) {
                self.shut_down(now);
            }

            fn poll_transmit(&mut self) -> Option<Transmit> {
                self.poll_transmit()
            }

            fn poll_packet(&mut self) -> Option<Buffer> {
                self.poll_packet()
            }

            fn poll_message(&mut self) -> Option<Self::ToPortal> {
                self.poll_message()
            }

            fn poll_event(&mut self) -> Option<Self::Event> {
                self.poll_event()
            }

            fn poll_timeout(&mut self) -> Option<Instant> {
                self.poll_timeout().map(|(at, _)| at)
            }

            fn status(&self, now: Instant) -> Status {
                self.status(now)
            }
        }
    };
}

core!(
    Client,
    portal::client::FromPortal,
    portal::client::ToPortal,
    client::Event
);
core!(
    Gateway,
    portal::gateway::FromPortal,
    portal::gateway::ToPortal,
    gateway::Event
);
