//! How things stand between a client or gateway and its portal, for programs and people.

use std::time::{Duration, SystemTime};

use connlib_wire::id::ResourceId;
use connlib_wire::portal::Generation;
use connlib_wire::portal::client::{AuthorizationCreationFailed, Refusal};
use serde::Serialize;

use crate::uplink::ConnectError;

/// How things stand with the portal.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PortalView {
    /// Whether it hears us.
    pub state: PortalState,
    /// What it speaks, or spoke when it was last joined; `None` before (portal-protocol.md §5.1).
    pub generation: Option<Generation>,
    /// The last access that it did not grant. Gateways ask for none.
    pub last_refusal: Option<AccessRefusal>,
}

/// Whether the portal hears us. What is connected goes on without it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PortalState {
    /// An attempt is under way, and none has failed before it.
    Connecting,
    /// It does.
    Joined,
    /// It was not reached, or the connection broke, and another attempt follows.
    Away {
        /// When that began.
        since: SystemTime,
        /// When the next attempt begins; it is under way if that has passed.
        retry_at: SystemTime,
        /// What went wrong last.
        error: ConnectError,
    },
}

/// An access that was not granted (portal-protocol.md §5.5).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AccessRefusal {
    /// To what.
    pub resource: ResourceId,
    /// Why.
    pub reason: Refusal,
    /// Which conditions of policies did not hold, in the portal's words; at most 16, of 64 characters each.
    pub violated_properties: Vec<String>,
    /// When we were told.
    pub at: SystemTime,
}

/// The same for `connlib status`. Members that say nothing are left out.
#[derive(Debug, Serialize)]
pub(crate) struct PortalReport {
    portal: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    portal_generation: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    portal_away_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    portal_retry_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    portal_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_refusal: Option<RefusalReport>,
}

#[derive(Debug, Serialize)]
struct RefusalReport {
    resource: ResourceId,
    reason: Refusal,
    violated_properties: Vec<String>,
    age_ms: u64,
}

/// What is kept of a list that the portal makes as long as it likes.
const MAX_PROPERTIES: usize = 16;
const MAX_PROPERTY: usize = 64;

impl PortalView {
    /// Nothing has been tried.
    pub(crate) fn new() -> Self {
        Self {
            state: PortalState::Connecting,
            generation: None,
            last_refusal: None,
        }
    }

    pub(crate) fn joined(&mut self, generation: Generation) {
        self.state = PortalState::Joined;
        self.generation = Some(generation);
    }

    /// The channel is not joined any more; why, and when it will be, may follow.
    pub(crate) fn left(&mut self) {
        self.state = PortalState::Connecting;
    }

    /// Something went wrong, and there will be another attempt after a while.
    pub(crate) fn failed(&mut self, now: SystemTime, error: ConnectError, after: Duration) {
        let since = match self.state {
            PortalState::Away { since, .. } => since,
            PortalState::Connecting | PortalState::Joined => now,
        };
        self.state = PortalState::Away {
            since,
            retry_at: now + after,
            error,
        };
    }

    pub(crate) fn refused(&mut self, now: SystemTime, failed: &AuthorizationCreationFailed) {
        let properties = failed.violated_properties.iter().take(MAX_PROPERTIES);
        let short = |text: &String| text.chars().take(MAX_PROPERTY).collect();
        self.last_refusal = Some(AccessRefusal {
            resource: failed.resource_id,
            reason: failed.reason,
            violated_properties: properties.map(short).collect(),
            at: now,
        });
    }

    pub(crate) fn report(&self, now: SystemTime) -> PortalReport {
        let (portal, away) = match &self.state {
            PortalState::Connecting => ("connecting", None),
            PortalState::Joined => ("joined", None),
            PortalState::Away {
                since,
                retry_at,
                error,
            } => ("away", Some((since, retry_at, error))),
        };

        PortalReport {
            portal,
            portal_generation: self.generation.map(|generation| match generation {
                Generation::V1 => "v1",
                Generation::V2 => "v2",
            }),
            portal_away_ms: away.map(|(since, ..)| millis(now, *since)),
            portal_retry_ms: away.map(|(_, retry_at, _)| millis(*retry_at, now)),
            portal_error: away.map(|(.., error)| error.to_string()),
            last_refusal: self.last_refusal.as_ref().map(|refusal| RefusalReport {
                resource: refusal.resource,
                reason: refusal.reason,
                violated_properties: refusal.violated_properties.clone(),
                age_ms: millis(now, refusal.at),
            }),
        }
    }
}

/// How much later `end` is; zero if it isn't, as an administrator may have set the clock.
fn millis(end: SystemTime, start: SystemTime) -> u64 {
    let between = end.duration_since(start).unwrap_or_default();

    u64::try_from(between.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RESOURCE: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11";

    #[test]
    fn what_happened_is_seen_and_reported() {
        let start = SystemTime::UNIX_EPOCH + 1_000 * SECOND;
        let mut view = PortalView::new();
        assert_eq!(report(&view, start), json!({"portal": "connecting"}));

        view.failed(start, ConnectError::TimedOut, SECOND);
        view.failed(start + 2 * SECOND, ConnectError::TimedOut, 3 * SECOND);
        let error = ConnectError::TimedOut.to_string();
        assert_eq!(
            report(&view, start + 4 * SECOND),
            json!({"portal": "away", "portal_away_ms": 4_000, "portal_retry_ms": 1_000, "portal_error": error})
        );

        view.joined(Generation::V1);
        let joined = json!({"portal": "joined", "portal_generation": "v1"});
        assert_eq!(report(&view, start), joined);
        view.left();
        let left = json!({"portal": "connecting", "portal_generation": "v1"});
        assert_eq!(report(&view, start), left);
        view.failed(start + 9 * SECOND, ConnectError::TimedOut, SECOND);
        assert_eq!(
            report(&view, start)["portal_away_ms"],
            0,
            "the clock was set"
        );
    }

    #[test]
    fn a_refusal_stays_and_is_as_long_as_is_of_use() {
        let now = SystemTime::UNIX_EPOCH + 1_000 * SECOND;
        let mut view = PortalView::new();
        view.refused(
            now,
            &AuthorizationCreationFailed {
                resource_id: RESOURCE.parse().unwrap(),
                reason: Refusal::Forbidden,
                violated_properties: vec!["x".repeat(1_000); 1_000],
            },
        );
        view.joined(Generation::V2);

        let refusal = &report(&view, now + SECOND)["last_refusal"];
        assert_eq!(refusal["resource"], RESOURCE);
        assert_eq!(refusal["reason"], "forbidden");
        assert_eq!(refusal["age_ms"], 1_000);
        let properties = view.last_refusal.unwrap().violated_properties;
        assert_eq!((properties.len(), properties[0].len()), (16, 64));
    }

    fn report(view: &PortalView, now: SystemTime) -> serde_json::Value {
        serde_json::to_value(view.report(now)).unwrap()
    }
}
