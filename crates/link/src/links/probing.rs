//! What is done so that a link keeps a path that works: questions by the path in use, other paths tried, the peer
//! followed when it moves.

use std::time::{Duration, Instant};

use connlib_wire::stun::{Message, TransactionId};
use rand::Rng as _;

use super::schedule::Asker;
use super::{Event, Links, Origin};
use crate::path::{Path, PathWhy};
use crate::peer::{Peer, PeerId, Step, Wanted};

/// Nothing was heard by the path in use for this long, but something by another one: the peer has moved there. Shorter
/// gaps are datagrams that overtook each other while the peer changed its path.
const QUIET: Duration = Duration::from_millis(100);

impl Links {
    /// Does what a peer's timers ask for.
    pub(super) fn do_wanted(&mut self, now: Instant, id: PeerId, wanted: Wanted) {
        match wanted {
            Wanted::Step(Step::Ask) => self.ask(now, id),
            Wanted::Step(Step::AskAgain) => {
                self.ask_relay_in_use(now, id);
                self.ask(now, id);
            }
            Wanted::Step(Step::Recheck) => {
                tracing::debug!(peer = %id, "The path fell silent; trying all of them");
                self.ask_relay_in_use(now, id);
                self.recheck(now, id);
                self.ask(now, id);
            }
            Wanted::Step(Step::Tell) => self.events.push_back(Event::Silent(id)),
            Wanted::Step(Step::GiveUp) => self.fail(id, "no path works any more"),
            Wanted::Use(path) => {
                let why = match self.is_lost(id) {
                    true => PathWhy::Silence,
                    false => PathWhy::Better,
                };
                self.use_path(now, id, path, why);
            }
            Wanted::Search => self.recheck(now, id),
            Wanted::TellUnanswered => self.events.push_back(Event::Unanswered(id)),
        }
    }

    /// Asks a peer, by the path in use, whether it is there.
    fn ask(&mut self, now: Instant, id: PeerId) {
        let mut transaction = [0; 12];
        self.rng.fill_bytes(&mut transaction);
        let transaction = TransactionId(transaction);
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let (Some(path), Some(negotiated)) = (peer.path, peer.as_negotiated()) else {
            return;
        };
        let Some(question) = negotiated.question(transaction, &self.pool) else {
            return;
        };
        tracing::trace!(peer = %id, patience = ?negotiated.liveness.patience(), "Is the peer there?");
        let asker = Asker::Liveness {
            peer: id,
            sent_at: now,
        };
        self.checks.remember(now, transaction, asker);
        self.send_control(now, path, &question);
    }

    /// The answer to such a question; whether it is believed.
    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        (id, sent_at): (PeerId, Instant),
        origin: &Origin,
        message: &Message<'_>,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else {
            return false;
        };
        let path = peer.path;
        let Some(negotiated) = peer.as_negotiated_mut() else {
            return false;
        };
        let password = &negotiated.config.remote.password;
        if !message.verify(password.expose().as_bytes()) {
            return false;
        }
        self.checks.answered(message.transaction_id());
        if path.is_some_and(|path| path.is_way_of(origin.path())) {
            let rtt = now.saturating_duration_since(sent_at);
            negotiated.liveness.sample(rtt);
            negotiated.liveness.heard(now);
            // The address that it left from is known now.
            peer.path = Some(origin.path());
        }
        self.settle(now, id);

        true
    }

    fn recheck(&mut self, now: Instant, id: PeerId) {
        let peer = self.peers.get_mut(&id);
        if let Some(negotiated) = peer.and_then(Peer::as_negotiated_mut) {
            negotiated.recheck(now);
        }
    }

    /// The relay that the path in use runs through may be why it is silent: it is gone, or a NAT between us has forgotten.
    fn ask_relay_in_use(&mut self, now: Instant, id: PeerId) {
        let path = self.peers.get(&id).and_then(|peer| peer.path);
        let Some(relay) = path.and_then(|path| path.relay) else {
            return;
        };
        if let Some(allocation) = self.relays.get_mut(relay) {
            allocation.check(now);
            self.settle_relay(now, relay);
        }
    }

    /// Something authentic came from a peer by `path`.
    pub(super) fn heard_by(&mut self, now: Instant, id: PeerId, path: Path) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let in_use = peer.path;
        let Some(negotiated) = peer.as_negotiated_mut() else {
            return self.heard_from(now, id, path);
        };
        negotiated.heard(now);
        match in_use {
            // The peer's agent was faster. Back the way it came: that way works, and the keys say that it is the peer.
            None => self.use_path(now, id, path, PathWhy::First),
            Some(in_use) if in_use.is_way_of(path) => {
                negotiated.liveness.heard(now);
                if in_use != path {
                    peer.path = Some(path);
                }
            }
            Some(_) if negotiated.is_late(now, path) => {}
            Some(_) if negotiated.liveness.is_quiet(now, QUIET) => {
                let why = negotiated.why_followed(now);
                self.use_path(now, id, path, why);
            }
            Some(_) => {}
        }
    }

    fn is_lost(&self, id: PeerId) -> bool {
        self.peers
            .get(&id)
            .and_then(Peer::as_negotiated)
            .is_some_and(|negotiated| negotiated.liveness.is_lost())
    }
}
