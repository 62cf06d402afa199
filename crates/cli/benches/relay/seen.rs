//! What a load has seen.

use std::time::Duration;

use connlib_wire::channel;

use crate::client::CHANNEL;
use crate::pace::Direction;
use crate::probe::Probe;

/// What came of it.
pub(crate) struct Seen {
    pub(crate) pairs: Vec<Pair>,
    pub(crate) elapsed: Duration,
    /// The server's time on a processor.
    pub(crate) server: Duration,
    /// The load's own.
    pub(crate) load: Duration,
    pub(crate) binding: Option<Probe>,
    pub(crate) refresh: Option<Probe>,
}

/// What one pair has sent and received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pair {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Bytes of payload, while the load lasted.
    pub(crate) bytes: u64,
    /// How long datagrams of a steady pace were under way.
    pub(crate) delays: Vec<Duration>,
}

impl Seen {
    /// Bytes of payload of each pair.
    pub(crate) fn bytes(&self) -> Vec<f64> {
        self.pairs.iter().map(|pair| pair.bytes as f64).collect()
    }

    pub(crate) fn total_bytes(&self) -> f64 {
        self.bytes().iter().sum()
    }

    pub(crate) fn gbps(&self) -> f64 {
        self.total_bytes() * 8.0 / self.elapsed.as_secs_f64() / 1e9
    }

    /// The share of what was sent that has arrived.
    pub(crate) fn carried(&self) -> f64 {
        let sent: u64 = self.pairs.iter().map(|pair| pair.sent).sum();
        let received: u64 = self.pairs.iter().map(|pair| pair.received).sum();

        received as f64 / sent as f64
    }

    /// What share of a core the server and the load took.
    pub(crate) fn cores(&self) -> (f64, f64) {
        let of = |busy: Duration| busy.as_secs_f64() / self.elapsed.as_secs_f64();

        (of(self.server), of(self.load))
    }
}

impl Pair {
    pub(crate) fn note<'a>(
        &mut self,
        direction: Direction,
        datagrams: impl Iterator<Item = &'a [u8]>,
        came_at: Duration,
        is_timed: bool,
    ) {
        for datagram in datagrams {
            let payload = match direction {
                Direction::Up => Some((CHANNEL, datagram)),
                Direction::Down => channel::decode(datagram),
            };
            // Answers come to the same socket.
            let Some((CHANNEL, payload)) = payload else {
                continue;
            };
            self.received += 1;
            self.bytes += payload.len() as u64;
            let stamp = payload
                .first_chunk()
                .map(|stamp| u64::from_be_bytes(*stamp));
            if let Some(stamp) = stamp.filter(|stamp| is_timed && *stamp != 0) {
                self.delays
                    .push(came_at.saturating_sub(Duration::from_nanos(stamp)));
            }
        }
    }
}
