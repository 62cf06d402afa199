//! What the task of a server is asked.

use connlib_tunnel::dns::ExchangeError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Outcome;

/// A message for a server, and who waits for the answer.
pub(super) struct Ask {
    pub(super) message: Vec<u8>,
    /// When nobody waits any longer.
    pub(super) deadline: Instant,
    reply: oneshot::Sender<Outcome>,
}

/// What a task is asked. The task looks into it whatever else it waits for, so that what nobody waits for any longer doesn't pile
/// up here.
pub(super) type Inbox = mpsc::UnboundedReceiver<Ask>;

impl Ask {
    pub(super) fn new(message: Vec<u8>, deadline: Instant) -> (Self, oneshot::Receiver<Outcome>) {
        let (reply, outcome) = oneshot::channel();
        let ask = Self {
            message,
            deadline,
            reply,
        };

        (ask, outcome)
    }

    pub(super) fn answer(self, outcome: Outcome) {
        // Who doesn't wait any longer doesn't mind.
        let _ = self.reply.send(outcome);
    }

    /// Whether somebody still waits.
    pub(super) fn is_awaited(&self) -> bool {
        !self.reply.is_closed()
    }
}

/// Answers everybody in an inbox with an error.
pub(super) fn refuse(inbox: &mut Inbox, error: &ExchangeError) {
    while let Ok(ask) = inbox.try_recv() {
        ask.answer(Err(error.clone()));
    }
}
