//! Ports that are kept for a second allocation (RFC 8656 §7.2, EVEN-PORT and RESERVATION-TOKEN).

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use connlib_wire::stun::Family;

use crate::config::AllocationPort;

/// How long a port is kept (RFC 8656 §7.2: at least that).
pub(crate) const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// What names a reservation; whoever knows it may have the port.
pub(crate) type Token = [u8; 8];

/// One port that waits for its owner.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) port: AllocationPort,
    pub(crate) family: Family,
    /// Who counts it towards the quota.
    pub(crate) user: String,
    pub(crate) until: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    by_token: BTreeMap<Token, Reservation>,
    /// How many each user has. Looked up, never iterated.
    by_user: HashMap<String, usize>,
}

impl Reservations {
    pub(crate) fn insert(&mut self, token: Token, reservation: Reservation) {
        *self.by_user.entry(reservation.user.clone()).or_default() += 1;
        self.by_token.insert(token, reservation);
    }

    pub(crate) fn get(&self, token: Token) -> Option<&Reservation> {
        self.by_token.get(&token)
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<Reservation> {
        let reservation = self.by_token.remove(&token)?;
        if let Some(count) = self.by_user.get_mut(&reservation.user) {
            *count -= 1;
            if *count == 0 {
                self.by_user.remove(&reservation.user);
            }
        }

        Some(reservation)
    }

    pub(crate) fn count_of(&self, user: &str) -> usize {
        self.by_user.get(user).copied().unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_token.len()
    }
}
