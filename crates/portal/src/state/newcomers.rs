//! Gateways that connect while an older connection of theirs seems alive.
//!
//! A gateway whose network address changed comes back at once, while nothing has told that its old connection is dead.
//! A second gateway with the same identity looks just the same. So the old connection is asked for a sign of life: if
//! there is none within [`ANSWER_WITHIN`], the newcomer takes its place; if there is one, the newcomer is refused
//! (portal-protocol.md §10.1).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use connlib_wire::id::GatewayId;

use super::connect::{Admission, Connect, Refused};
use super::session::{Goodbye, SocketId};
use super::{Event, State};

/// How long a connection may take to give a sign of life. A live one on a bad path needs a few hundred milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How many connections wait for one gateway's answer before more are refused at once.
const MAX_WAITING: usize = 8;

/// Who waits until it is known whether an older connection is alive.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    by_gateway: BTreeMap<GatewayId, Question>,
}

#[derive(Debug)]
struct Question {
    /// Who was asked.
    asked: SocketId,
    /// When its silence is an answer.
    due_at: Instant,
    /// Who waits for the answer, in the order they came.
    waiting: Vec<(SocketId, Connect)>,
}

impl Newcomers {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let questions = self.by_gateway.values();

        questions.map(|question| question.due_at).min()
    }

    /// The gateway's connection is gone: nobody is waited for any longer.
    pub(super) fn old_is_gone(&mut self, now: Instant, gateway: GatewayId) {
        if let Some(question) = self.by_gateway.get_mut(&gateway) {
            question.due_at = now;
        }
    }

    /// A newcomer doesn't wait any longer.
    pub(super) fn forget(&mut self, socket: SocketId) {
        self.by_gateway.retain(|_, question| {
            question.waiting.retain(|(waiting, _)| *waiting != socket);
            !question.waiting.is_empty()
        });
    }

    fn take_due(&mut self, now: Instant) -> Vec<(GatewayId, Question)> {
        let due = self
            .by_gateway
            .extract_if(.., |_, question| question.due_at <= now);

        due.collect()
    }
}

impl State {
    /// Lets `newcomer` wait until `old`, which holds its place, has been asked whether it is alive.
    ///
    /// # Errors
    ///
    /// [`Refused::GatewayAlreadyConnected`] if too many wait.
    pub(super) fn ask_old(
        &mut self,
        gateway: GatewayId,
        old: SocketId,
        newcomer: (SocketId, Connect),
    ) -> Result<(), Refused> {
        let due_at = self.clock.now + ANSWER_WITHIN;
        let question = (self.newcomers.by_gateway)
            .entry(gateway)
            .or_insert_with(|| Question {
                asked: old,
                due_at,
                waiting: vec![],
            });
        if question.waiting.len() >= MAX_WAITING {
            return Err(Refused::GatewayAlreadyConnected);
        }
        let is_asked = question.asked == old && !question.waiting.is_empty();
        question.waiting.push(newcomer);
        if !is_asked {
            (question.asked, question.due_at) = (old, due_at);
            self.events.push_back(Event::Ping { socket: old });
        }

        Ok(())
    }

    /// `gateway` is alive: whoever wants its place goes away.
    pub(super) fn refuse_newcomers(&mut self, gateway: GatewayId) {
        let Some(question) = self.newcomers.by_gateway.remove(&gateway) else {
            return;
        };
        for (socket, _) in question.waiting {
            tracing::debug!(%gateway, ?socket, "Refusing a second connection of a gateway that is alive");
            let result = Err(Refused::GatewayAlreadyConnected);
            self.events.push_back(Event::Decided { socket, result });
        }
    }

    /// Lets those in whose gateway's old connection didn't answer, or is gone.
    pub(super) fn admit_newcomers(&mut self) {
        for (gateway, question) in self.newcomers.take_due(self.clock.now) {
            let holder = self.gateways.get(&gateway).map(|session| session.socket);
            if holder == Some(question.asked) {
                tracing::debug!(%gateway, socket = ?question.asked, "Giving up a connection that is silent");
                self.close(question.asked, Goodbye::Replaced);
            }
            // The second one meets the first one, and asks it in turn.
            for (socket, connect) in question.waiting {
                let result = match self.admit(socket, &connect) {
                    Ok(Admission::Opened) => Ok(()),
                    Ok(Admission::Waiting) => continue,
                    Err(refused) => Err(refused),
                };
                self.events.push_back(Event::Decided { socket, result });
            }
        }
    }
}
