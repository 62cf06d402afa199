//! Addresses of peers that come and go.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use is::Candidate;

use super::Links;
use crate::candidates::{self, MAX_REMOTES, Refusal};
use crate::peer::{Peer, PeerId};

/// How long an address is kept for a peer whose link doesn't exist yet.
const EARLY_FOR: Duration = Duration::from_secs(10);

/// The most addresses that are kept so.
const MAX_EARLY: usize = 64;

/// Addresses of peers that were told before the link itself: the portal's messages may overtake each other.
#[derive(Debug, Default)]
pub(super) struct Early {
    lines: VecDeque<(Instant, PeerId, String)>,
}

impl Early {
    fn keep(&mut self, now: Instant, peer: PeerId, line: &str) {
        self.forget_old(now);
        if self.lines.len() >= MAX_EARLY {
            self.lines.pop_front();
        }
        self.lines.push_back((now, peer, line.to_owned()));
    }

    /// What was told of a peer before, oldest first.
    pub(super) fn take(&mut self, now: Instant, peer: PeerId) -> Vec<String> {
        self.forget_old(now);
        let (of_peer, others) = std::mem::take(&mut self.lines)
            .into_iter()
            .partition::<VecDeque<_>, _>(|(_, of, _)| *of == peer);
        self.lines = others;

        of_peer.into_iter().map(|(.., line)| line).collect()
    }

    fn withdraw(&mut self, peer: PeerId, candidate: &Candidate) {
        self.lines.retain(|(_, of, line)| {
            let is_same =
                candidates::parse(line).is_ok_and(|known| known.addr() == candidate.addr());
            *of != peer || !is_same
        });
    }

    fn forget_old(&mut self, now: Instant) {
        self.lines
            .retain(|(at, ..)| now.saturating_duration_since(*at) < EARLY_FOR);
    }
}

impl Links {
    /// Takes an address that the peer may be tried at. A line that can't be used is ignored and counted; one
    /// for a link that doesn't exist yet is kept for ten seconds.
    pub fn add_remote_candidate(&mut self, now: Instant, id: PeerId, line: &str) {
        self.last_now = now;
        match self.admit(id, line) {
            Ok(_) if !self.peers.contains_key(&id) => self.early.keep(now, id, line),
            Ok(candidate) => self.try_at(now, id, candidate),
            Err(refusal) => {
                tracing::debug!(peer = %id, ?refusal, "Ignoring a candidate");
                let counter = match refusal {
                    Refusal::Unusable => &mut self.stats.candidates_unusable,
                    Refusal::Ours => &mut self.stats.candidates_ours,
                    Refusal::TooMany => &mut self.stats.candidates_too_many,
                };
                *counter += 1;
            }
        }
    }

    /// Takes back an address of the peer.
    pub fn remove_remote_candidate(&mut self, now: Instant, id: PeerId, line: &str) {
        self.last_now = now;
        let Ok(candidate) = candidates::parse(line) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return self.early.withdraw(id, &candidate);
        };
        let path = peer.path;
        if let Some(negotiated) = peer.as_negotiated_mut() {
            if path.is_some_and(|path| path.remote == candidate.addr()) {
                negotiated.path_withdrawn(now);
            }
            negotiated.agent.remove_remote(now, &candidate);
            self.settle(now, id);
        }
    }

    fn admit(&self, id: PeerId, line: &str) -> Result<Candidate, Refusal> {
        let candidate = candidates::parse(line)?;
        let addr = candidate.addr();
        if self.inside.iter().any(|inside| inside.contains(&addr.ip())) {
            return Err(Refusal::Unusable);
        }
        let peer = self.peers.get(&id).and_then(Peer::as_negotiated);
        let Some(peer) = peer else {
            return Ok(candidate);
        };
        if peer.agent.knows_local(addr) {
            return Err(Refusal::Ours);
        }
        let mut known = peer.agent.remotes();
        if known.any(|known| known.addr() == addr) {
            // Told again, or known from its own checks.
            return Ok(candidate);
        }
        if peer.agent.remotes().count() >= MAX_REMOTES {
            return Err(Refusal::TooMany);
        }

        Ok(candidate)
    }

    fn try_at(&mut self, now: Instant, id: PeerId, candidate: Candidate) {
        let peer = self.peers.get_mut(&id);
        let Some(peer) = peer.and_then(Peer::as_negotiated_mut) else {
            return;
        };
        peer.active(now);
        peer.add_remote(now, candidate.clone());
        let known: Vec<_> = peer.agent.remotes().collect();
        let guesses = candidates::guesses(&known);
        for guess in &guesses {
            peer.add_remote(now, guess.clone());
        }
        let relays = peer.relays.clone();
        for candidate in guesses.iter().chain([&candidate]) {
            if !candidates::wants_channel(candidate) {
                continue;
            }
            for relay in &relays {
                self.relays.bind_channel(now, *relay, candidate.addr());
                self.settle_relay(now, *relay);
            }
        }
        self.settle(now, id);
    }
}
