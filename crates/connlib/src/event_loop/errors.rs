//! What went wrong in one turn: all of it, because an error never ends a batch.

use std::io;
use std::net::SocketAddr;
use std::thread;

use connlib_wire::stun::Family;

use super::stats::DropReason;

/// Something that went wrong, by what it means for the loop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The loop can't do its work any more.
    #[error(transparent)]
    Fatal(Fatal),
    /// The loop goes on and misses something.
    #[error(transparent)]
    Degraded(Degraded),
    /// A packet or datagram is lost; the next may not be.
    #[error(transparent)]
    PerPacket(PerPacket),
}

/// Why the loop can't go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// The TUN device was removed.
    #[error("the TUN device is gone ({source}); find out who removed it and start again")]
    TunGone {
        /// What the kernel answered.
        source: io::Error,
    },
}

/// What the loop goes on without.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Degraded {
    /// A socket no longer works: bind a new one.
    #[error("the UDP socket {addr} is lost ({source}); it has to be bound anew")]
    SocketLost {
        /// Where it was bound to.
        addr: SocketAddr,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Nothing was received this time.
    #[error("receiving by {family:?} failed ({source})")]
    NotReceived {
        /// From which socket.
        family: Family,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Nothing was read this time.
    #[error("reading from the TUN device failed ({source})")]
    NotRead {
        /// What the kernel answered.
        source: io::Error,
    },
}

/// A packet or datagram that the operating system refused.
#[derive(Debug, thiserror::Error)]
#[error("dropped ({reason:?}): {source}")]
pub struct PerPacket {
    /// What it is counted as.
    pub reason: DropReason,
    /// What the kernel answered.
    pub source: io::Error,
}

/// All that went wrong in one turn, in order.
///
/// It has no `From`, so that `?` can't end a batch. Whoever gets it reads all of it: behind something harmless there may
/// be something fatal. Dropping it unread is a bug.
#[derive(Debug, Default)]
#[must_use = "a fatal error may be among them"]
pub struct Errors {
    unread: Vec<Error>,
}

impl Errors {
    /// Nothing went wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, error: Error) {
        self.unread.push(error);
    }

    /// Whether there is none to read.
    pub fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// Hands them over, in order. Those that the iterator is dropped with count as read.
    pub fn drain(&mut self) -> impl Iterator<Item = Error> {
        self.unread.drain(..)
    }
}

impl Drop for Errors {
    fn drop(&mut self) {
        if self.unread.is_empty() {
            return;
        }
        let errors = &self.unread;
        tracing::error!(?errors, "Errors were dropped unread; this is a bug");
        debug_assert!(thread::panicking(), "unread errors: {errors:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fatal_error_behind_a_harmless_one_is_seen() {
        let mut errors = Errors::new();
        errors.push(harmless());
        errors.push(Error::Fatal(Fatal::TunGone {
            source: io::ErrorKind::NotFound.into(),
        }));

        let seen: Vec<_> = errors.drain().collect();

        assert!(matches!(seen[0], Error::PerPacket(_)));
        assert!(matches!(seen[1], Error::Fatal(_)));
        assert!(errors.is_empty());
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "unread errors")]
    fn dropping_errors_unread_is_a_bug() {
        let mut errors = Errors::new();
        errors.push(harmless());
    }

    fn harmless() -> Error {
        Error::PerPacket(PerPacket {
            reason: DropReason::Unreachable,
            source: io::ErrorKind::NetworkUnreachable.into(),
        })
    }
}
