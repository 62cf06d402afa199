//! A program on its own.

use std::net::IpAddr;
use std::time::Instant;

use super::payload::Stamp;
use super::{ASK_AGAIN, PIECE, Probe, Running, WINDOW};
use crate::oracle::stands_for_a_name;
use crate::scenario::{FlowKind, Protocol, Service};

impl Running {
    /// The name that it talks to by an address that stands for it.
    pub(crate) fn name(&self) -> Option<&str> {
        let stands_for_it = self.to.is_none_or(stands_for_a_name);

        self.flow.to.name().filter(|_| stands_for_it)
    }

    /// Where its packets come from and go to, as far as programs of one host can tell.
    pub(crate) fn source(&self) -> (Service, u16, Option<IpAddr>) {
        (self.flow.service, self.own_port, self.to)
    }

    /// What a gateway tells its flow from others to names by.
    pub(crate) fn inside(&self) -> (Protocol, u16, Option<IpAddr>) {
        (self.flow.service.protocol, self.own_port, self.to)
    }

    /// The pieces that are asked for at `now`.
    pub(super) fn ask(&mut self, now: Instant) -> Vec<(u32, u16)> {
        let FlowKind::Fetch { bytes } = self.flow.kind else {
            return Vec::new();
        };
        let mut asked = Vec::new();
        let mut open = 0;
        for number in 0..bytes.div_ceil(PIECE) {
            let piece = self.pieces.entry(number).or_default();
            if piece.is_there {
                continue;
            }
            open += 1;
            if open > WINDOW {
                break;
            }
            let [first, longest] = ASK_AGAIN;
            let doubled = 1 << u32::from(piece.attempts.saturating_sub(1)).min(8);
            let patience = (first * doubled).min(longest);
            if piece.asked_at.is_none_or(|at| at + patience <= now) {
                asked.push((number, piece.attempts));
                piece.attempts += 1;
                piece.asked_at = Some(now);
            }
        }

        asked
    }

    pub(super) fn take_piece(&mut self, now: Instant, number: u32) -> bool {
        let Some(piece) = self.pieces.get_mut(&number).filter(|piece| !piece.is_there) else {
            return false;
        };
        piece.is_there = true;
        self.pieces_at.push(now);
        self.missing -= 1;
        if self.missing == 0 {
            self.completed_at = Some(now);
        }

        self.missing > 0
    }

    pub(super) fn probe(&mut self, number: u32) -> Option<&mut Probe> {
        self.probes.get_mut(usize::try_from(number).ok()?)
    }

    /// Each attempt is seen once at each end, and requests in the order they were sent in.
    pub(super) fn see(
        &mut self,
        end: usize,
        stamp: Stamp,
        keeps_order: bool,
    ) -> Result<(), String> {
        let where_ = ["a gateway", "the client"]
            .get(end)
            .copied()
            .unwrap_or_default();
        let (Some(seen), Some(last)) = (self.seen.get_mut(end), self.last.get_mut(end)) else {
            return Ok(());
        };
        let Stamp {
            number, attempt, ..
        } = stamp;
        if !seen.insert((number, attempt)) {
            let name = &self.flow.name;
            return Err(format!("`{name}` {number} came out of {where_} twice"));
        }
        let is_ping = matches!(self.flow.kind, FlowKind::Ping { .. });
        if let Some(last) = last.filter(|last| is_ping && keeps_order && *last > number) {
            let name = &self.flow.name;
            return Err(format!(
                "`{name}` {number} came out of {where_} after {last}"
            ));
        }
        *last = Some(number);

        Ok(())
    }
}
