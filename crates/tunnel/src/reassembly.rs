//! Packets that come in parts: decided upon as a whole (RFC 791 §3.2, RFC 8200 §4.5).
//!
//! Only the first part knows ports, and none the checksum; so what is larger than a tunnel's packet is put together where it
//! enters, judged and translated like any other, and cut again where it leaves. No part is passed on by itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use connlib_link::{Opened, PeerId};
use connlib_wire::MAX_PACKET;
use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::ecn::Ecn;
use connlib_wire::ip::{Datagram, Fragment, Packet, make_whole};
use connlib_wire::offload::VirtioHeader;
use connlib_wire::super_packet::SuperPacket;

use crate::drops::{DropReason, Drops};

/// Puts packets together, whose parts come in any order.
#[derive(Debug)]
pub(crate) struct Reassembly {
    waiting: BTreeMap<Key, Waiting>,
    /// The bytes that wait.
    held: usize,
    pool: Pool,
    /// Parts that came to nothing.
    lost: u64,
}

/// From which peer a packet comes, if from any, and which one it is.
type Key = (Option<PeerId>, Datagram);

#[derive(Debug)]
struct Waiting {
    /// The parts by where they lie.
    parts: BTreeMap<usize, Vec<u8>>,
    /// Headers of the first part.
    headers: Option<Vec<u8>>,
    /// The length of the payload, once the last part has come.
    len: Option<usize>,
    held: usize,
    is_marked: bool,
    /// Parts overlap, or contradict each other: nothing is made of it, whatever else comes.
    is_void: bool,
    since: Instant,
}

/// How long the parts of a packet are waited for. Paths through a tunnel don't delay by more.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most packets whose parts wait, and the most bytes of them.
const MAX_WAITING: usize = 256;
const MAX_HELD: usize = 2 * 1024 * 1024;

/// The most parts of one packet: twice what the longest takes.
const MAX_PARTS: usize = 128;

/// The longest packet: IPv6 counts its payload alone.
const MAX_LEN: usize = 65_535 + 40;

impl Reassembly {
    pub(crate) fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            held: 0,
            pool: Pool::new(MAX_LEN, 2),
            lost: 0,
        }
    }

    /// What one read of the TUN device brings as a packet to be routed. `None` for a part of one whose others are missing, and for
    /// what is no packet.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        header: VirtioHeader,
        bytes: Buffer,
        dropped: &mut Drops,
    ) -> Option<SuperPacket<Buffer>> {
        let packet = match Fragment::parse(&bytes) {
            None => SuperPacket::parse(header, bytes),
            Some(part) => {
                let whole = self.take(now, None, &part, part.ecn);
                dropped.add(DropReason::Incomplete, self.take_lost());
                SuperPacket::parse(VirtioHeader::default(), whole?)
            }
        };
        if packet.is_err() {
            dropped.add(DropReason::Malformed, 1);
        }

        packet.ok()
    }

    /// Takes what a peer has sent that is no whole packet. Returns the whole if this was the last part missing.
    pub(crate) fn take_opened(
        &mut self,
        now: Instant,
        opened: &Opened<'_>,
        dropped: &mut Drops,
    ) -> Option<(PeerId, Buffer)> {
        let Some(part) = Fragment::parse(opened.bytes) else {
            dropped.add(DropReason::Malformed, 1);
            return None;
        };
        let ecn = part.ecn.merged_with_outer(opened.outer_ecn);
        let whole = self.take(now, Some(opened.peer), &part, ecn);
        dropped.add(DropReason::Incomplete, self.take_lost());

        whole.map(|whole| (opened.peer, whole))
    }

    /// Takes a part of a packet with the congestion mark that it has come with. Returns the whole if it was the last one missing.
    fn take(
        &mut self,
        now: Instant,
        from: Option<PeerId>,
        part: &Fragment<'_>,
        ecn: Ecn,
    ) -> Option<Buffer> {
        let key = (from, part.of);
        let waiting = self.waiting.get(&key);
        if waiting.is_none_or(|waiting| waiting.is_over(now)) {
            self.forget(&key);
            self.make_room(now, 0);
        }
        let waiting = self.waiting.entry(key).or_insert_with(|| Waiting::new(now));
        if waiting.is_void {
            self.lost += 1;
            return None;
        }
        let before = waiting.held;
        waiting.add(part, ecn);
        self.held = self.held + waiting.held - before;
        if waiting.is_void {
            self.lost += waiting.parts.len() as u64 + 1;
            self.held -= waiting.empty();
            return None;
        }
        if !waiting.is_complete() {
            self.make_room(now, 1);
            return None;
        }
        let waiting = self.waiting.remove(&key)?;
        self.held -= waiting.held;
        let whole = waiting.join(&self.pool);
        if whole.is_none() {
            self.lost += waiting.parts.len() as u64;
        }

        whole
    }

    /// Forgets what has waited too long.
    pub(crate) fn trim(&mut self, now: Instant) {
        while let Some(key) = self.first_of(|waiting| waiting.is_over(now)) {
            self.forget(&key);
        }
        self.pool.trim();
    }

    /// How many parts have come to nothing since this was asked last.
    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Keeps within bounds with so many more packets than are counted already taken off: whoever has most here loses the oldest.
    fn make_room(&mut self, now: Instant, counted: usize) {
        while self.waiting.len() >= MAX_WAITING + counted || self.held > MAX_HELD {
            let over = self.first_of(|waiting| waiting.is_over(now));
            let Some(key) = over.or_else(|| self.oldest_of_fattest()) else {
                return;
            };
            self.forget(&key);
        }
    }

    fn first_of(&self, is_meant: impl Fn(&Waiting) -> bool) -> Option<Key> {
        let mut waiting = self.waiting.iter();

        waiting
            .find(|(_, waiting)| is_meant(waiting))
            .map(|(key, _)| *key)
    }

    fn oldest_of_fattest(&self) -> Option<Key> {
        // A packet costs something even if little of it has come.
        const EACH: usize = MAX_HELD / MAX_WAITING;
        let mut shares: BTreeMap<Option<PeerId>, usize> = BTreeMap::new();
        for ((from, _), waiting) in &self.waiting {
            *shares.entry(*from).or_default() += waiting.held.max(EACH);
        }
        let (fattest, _) = shares.into_iter().max_by_key(|(_, share)| *share)?;
        let of_it = self
            .waiting
            .iter()
            .filter(|((from, _), _)| *from == fattest);

        of_it
            .min_by_key(|(_, waiting)| waiting.since)
            .map(|(key, _)| *key)
    }

    fn forget(&mut self, key: &Key) {
        if let Some(waiting) = self.waiting.remove(key) {
            self.held -= waiting.held;
            self.lost += waiting.parts.len() as u64;
        }
    }
}

/// Cuts a whole packet into parts that any device takes, and appends them to `packets`.
pub(crate) fn cut_into(packets: &mut VecDeque<Buffer>, pool: &Pool, whole: Buffer) {
    let Ok(mut whole) = SuperPacket::parse(VirtioHeader::default(), whole) else {
        return;
    };
    if whole.fit_into(MAX_PACKET) {
        let mut parts = whole.split();
        while let Some(part) = parts.next_segment() {
            packets.extend(pool.copy(part));
        }
    }
}

impl Waiting {
    fn new(now: Instant) -> Self {
        Self {
            parts: BTreeMap::new(),
            headers: None,
            len: None,
            held: 0,
            is_marked: false,
            is_void: false,
            since: now,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= PATIENCE
    }

    fn add(&mut self, part: &Fragment<'_>, ecn: Ecn) {
        let Some(end) = part.end() else {
            self.is_void = true;
            return;
        };
        // The network may double a part.
        if let Some(known) = self.parts.get(&part.offset)
            && known == part.payload
        {
            return;
        }
        let before = self.parts.range(..=part.offset).next_back();
        let after = self.parts.range(part.offset..).next();
        let overlaps = before.is_some_and(|(at, bytes)| at + bytes.len() > part.offset)
            || after.is_some_and(|(at, _)| *at < end);
        let contradicts = match (self.len, part.has_more) {
            (Some(len), true) => end >= len,
            (Some(len), false) => end != len,
            (None, true) => false,
            (None, false) => {
                let last = self.parts.last_key_value();
                last.is_some_and(|(at, bytes)| at + bytes.len() > part.offset)
            }
        };
        // Pieces in a chain of overlaps serve to pass filters only (RFC 5722, RFC 1858).
        if overlaps || contradicts || self.parts.len() >= MAX_PARTS {
            self.is_void = true;
            return;
        }
        if part.offset == 0 {
            self.headers = Some(part.headers.to_vec());
        }
        if !part.has_more {
            self.len = Some(end);
        }
        self.is_marked |= ecn == Ecn::Ce;
        self.held += part.payload.len();
        self.parts.insert(part.offset, part.payload.to_vec());
    }

    /// Forgets the parts; returns how many bytes they were.
    fn empty(&mut self) -> usize {
        self.parts.clear();
        self.headers = None;

        std::mem::take(&mut self.held)
    }

    /// Parts never overlap: they are all there if they are as long as the whole.
    fn is_complete(&self) -> bool {
        self.len == Some(self.held) && self.headers.is_some()
    }

    /// The whole, if all that it states is right.
    fn join(&self, pool: &Pool) -> Option<Buffer> {
        let mut headers = self.headers.clone()?;
        make_whole(&mut headers, self.held)?;
        let mut whole = pool.take(0);
        whole.extend(headers.len())?.copy_from_slice(&headers);
        for part in self.parts.values() {
            whole.extend(part.len())?.copy_from_slice(part);
        }
        let mut packet = Packet::parse_any_size(&mut *whole).ok()?;
        // One marked part marks the whole, if it can carry a mark (RFC 3168 §5.3).
        if self.is_marked && packet.ecn() != Ecn::NotEct {
            packet.set_ecn(Ecn::Ce);
        }

        Some(whole)
    }
}

#[cfg(test)]
mod tests;
