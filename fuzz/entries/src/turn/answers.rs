//! Answers: to whom, how many, and what they say.

use std::net::SocketAddr;

use connlib_wire::stun::{Class, Message, Method};

use super::ask::Proof;
use super::law::Outcome;
use super::{LIMITS, MAX_UNPROVEN, OPENING, Scene};

impl Scene {
    pub(super) fn answers(&mut self, most: usize) {
        let mut count = 0;
        while let Some(transmit) = self.server.poll_transmit() {
            count += 1;
            assert_eq!(transmit.segments(), 1);
            let answer = Message::parse(&transmit.payload).expect("answers are STUN");
            self.answered(transmit.route.dst, &answer, transmit.payload.len());
        }
        assert!(count <= most, "{count} answers to {most}");
    }

    fn answered(&mut self, to: SocketAddr, answer: &Message<'_>, length: usize) {
        let is_success = answer.class() == Class::Success;
        assert!(is_success || answer.class() == Class::Error);
        assert_eq!(!is_success, answer.error_code().is_some());
        assert_ne!(answer.fingerprint_matches(), Some(false));
        if let Some(nonce) = answer.nonce() {
            self.nonces.insert(to, (nonce.to_owned(), self.now));
        }
        let asked = self.asked.remove(&(answer.transaction_id(), to));
        let is_proven = asked.as_ref().is_some_and(|(ask, proof, _)| {
            *proof != Proof::Fails && ask.wish_is_for_users() && !ask.is_broken
        });
        if !is_proven {
            self.count_unproven(to, length);
            assert!(!is_success || answer.method() == Method::Binding);
            assert!(answer.relayed_addresses().next().is_none());
        }
        let Some((ask, proof, outcome)) = asked else {
            return;
        };

        assert!(!ask.is_broken, "it was to be dropped");
        assert_eq!(ask.method, answer.method());
        assert_eq!(ask.has_fingerprint, answer.has_fingerprint());
        if is_proven && (proof == Proof::Holds || is_success) {
            assert!(ask.signs(answer), "a user's answers are signed");
            assert!(!matches!(answer.error_code(), Some(401 | 438)));
        }
        match (answer.error_code(), outcome) {
            (None, Outcome::Success | Outcome::Later | Outcome::RefusalOrLater) if is_proven => {
                self.law.grant(self.now, &ask, to, answer);
            }
            (None, _) => assert_eq!((ask.method, ask.is_unknown), (Method::Binding, false)),
            (Some(_), Outcome::Refusal | Outcome::RefusalOrLater) => {}
            (Some(code), _) if proof == Proof::Holds || self.law.opening.contains_key(&to) => {
                // What waited for a port has none: it could not be opened, or not in time.
                assert_eq!(code, 508, "{ask:?} {outcome:?}");
                let opening = self.law.opening.remove(&to).expect("it waited");
                let was_too_slow = self.now >= opening.since + OPENING;
                assert!(was_too_slow || self.port_failed_at == Some(self.now));
            }
            (Some(_), _) => {}
        }
        if is_proven && answer.error_code() == Some(508) {
            self.law.opening.remove(&to);
        }
    }

    /// Who proves nothing gets few answers, and short ones.
    fn count_unproven(&mut self, to: SocketAddr, length: usize) {
        assert!(length <= MAX_UNPROVEN, "{length} bytes");
        let count = self.unproven.entry(to.ip()).or_default();
        *count += 1;
        let earned = (self.now - self.start).as_secs_f64() * f64::from(LIMITS.unproven_per_sec);
        let most = f64::from(LIMITS.unproven_burst) + earned + 1.0;
        assert!(f64::from(*count) <= most, "too many answers for {to}");
    }
}
