//! Candidates on their way to the portal: gathered per peer, and held while the portal is away
//! (portal-protocol.md §9.6).

use std::collections::{BTreeMap, BTreeSet};

use connlib_link::PeerId;

/// What each peer has yet to be told of, and what it was told.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    by_peer: BTreeMap<PeerId, Changes>,
    /// The addresses that peers know. One may be told again, when a connection's description is.
    told: BTreeMap<PeerId, BTreeSet<Address>>,
}

/// What remains of a line when it is invalidated later, an address and a port: its priority and name fragment differ by then.
type Address = (String, String);

#[derive(Debug, Default)]
struct Changes {
    added: BTreeSet<Line>,
    removed: BTreeSet<Line>,
}

/// Ordered as peers want them: the highest priority first, then by text.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Line(std::cmp::Reverse<u32>, String);

impl Line {
    fn new(text: String) -> Self {
        let priority = text.split(' ').nth(3).and_then(|field| field.parse().ok());

        Self(std::cmp::Reverse(priority.unwrap_or_default()), text)
    }

    fn address(&self) -> Option<Address> {
        let mut fields = self.1.split(' ').skip(4);

        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    }
}

/// Something to tell a peer.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Change {
    Added(PeerId, Vec<String>),
    Removed(PeerId, Vec<String>),
}

impl Candidates {
    pub(crate) fn add(&mut self, peer: PeerId, line: String) {
        self.by_peer
            .entry(peer)
            .or_default()
            .added
            .insert(Line::new(line));
    }

    /// A candidate that no one was told of needs no taking back.
    pub(crate) fn remove(&mut self, peer: PeerId, line: String) {
        let changes = self.by_peer.entry(peer).or_default();
        let line = Line::new(line);
        let address = line.address();
        let before = changes.added.len();
        changes.added.retain(|added| added.address() != address);
        let told = self.told.get_mut(&peer).zip(address);
        let was_told = told.is_some_and(|(told, address)| told.remove(&address));
        if was_told || changes.added.len() == before {
            changes.removed.insert(line);
        }
    }

    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.by_peer.remove(&peer);
        self.told.remove(&peer);
    }

    /// The next message worth of changes: what is gone before what is new.
    pub(crate) fn poll(&mut self) -> Option<Change> {
        loop {
            let mut entry = self.by_peer.first_entry()?;
            let peer = *entry.key();
            let changes = entry.get_mut();
            let texts = |lines: BTreeSet<Line>| lines.into_iter().map(|line| line.1).collect();
            if !changes.removed.is_empty() {
                return Some(Change::Removed(
                    peer,
                    texts(std::mem::take(&mut changes.removed)),
                ));
            }
            if !changes.added.is_empty() {
                let added = std::mem::take(&mut changes.added);
                let told = self.told.entry(peer).or_default();
                told.extend(added.iter().filter_map(Line::address));
                return Some(Change::Added(peer, texts(added)));
            }
            entry.remove();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_peer
            .values()
            .all(|changes| changes.added.is_empty() && changes.removed.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: PeerId = PeerId(uuid::Uuid::from_u128(1));
    const HOST: &str = "candidate:1 1 udp 2130706175 192.0.2.1 52625 typ host ufrag a";
    const RELAY: &str =
        "candidate:2 1 udp 37748479 203.0.113.9 50000 typ relay raddr 0.0.0.0 rport 0 ufrag a";
    const RELAY_LATER: &str =
        "candidate:3 1 udp 50331391 203.0.113.9 50000 typ relay raddr 0.0.0.0 rport 0";

    #[test]
    fn one_message_carries_all_best_first() {
        let mut candidates = Candidates::default();
        candidates.add(PEER, RELAY.to_owned());
        candidates.add(PEER, HOST.to_owned());
        candidates.add(PEER, HOST.to_owned());

        assert_eq!(
            candidates.poll(),
            Some(Change::Added(PEER, vec![HOST.to_owned(), RELAY.to_owned()]))
        );
        assert_eq!(candidates.poll(), None);
    }

    #[test]
    fn what_was_never_told_is_never_taken_back() {
        let mut candidates = Candidates::default();
        candidates.add(PEER, RELAY.to_owned());
        candidates.remove(PEER, RELAY_LATER.to_owned());
        assert!(candidates.is_empty());

        candidates.remove(PEER, RELAY_LATER.to_owned());
        assert_eq!(
            candidates.poll(),
            Some(Change::Removed(PEER, vec![RELAY_LATER.to_owned()]))
        );
    }

    proptest! {
        /// portal-protocol.md §14.5: what comes and goes while the portal is away adds up to what there is when it is back.
        #[test]
        fn a_peer_knows_in_the_end_what_there_is(
            changes in proptest::collection::vec((0..4_u16, any::<bool>(), any::<bool>()), 0..40),
        ) {
            let line = |port: u16| format!("candidate:1 1 udp 1 192.0.2.1 {port} typ host ufrag a");
            let mut candidates = Candidates::default();
            let (mut ours, mut known) = (BTreeSet::new(), BTreeSet::new());
            let count = changes.len();
            for (at, (port, is_there, is_joined)) in changes.into_iter().enumerate() {
                match is_there {
                    true => {
                        ours.insert(line(port));
                        candidates.add(PEER, line(port));
                    }
                    false => {
                        ours.remove(&line(port));
                        candidates.remove(PEER, line(port));
                    }
                }
                if !is_joined && at + 1 < count {
                    continue;
                }
                while let Some(change) = candidates.poll() {
                    match change {
                        Change::Added(_, lines) => known.extend(lines),
                        Change::Removed(_, lines) => known.retain(|line| !lines.contains(line)),
                    }
                }
            }
            prop_assert_eq!(known, ours);
        }
    }
}
