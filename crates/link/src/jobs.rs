//! Encryption as values: what the links reserve in order may be carried out anywhere and in any order.
//!
//! `begin_seal` and `begin_open` of [`Links`](crate::Links) fix counters and keys; [`Job::run`] needs nothing of the links,
//! so that another thread can do it; `commit` takes jobs back in any order and lets their results out in the order in which
//! they were begun. One super-packet, or one received train, is one job at most.

use std::ops::Range;

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::channel::{self, ChannelNumber};
use connlib_wire::super_packet::SuperPacket;
use connlib_wire::train::{Received, Route, Transmit, max_len};

use crate::links::Origin;
use crate::peer::PeerId;
use crate::wireguard::{self, TunnelId};

/// Something to encrypt or decrypt.
#[derive(Debug)]
#[must_use = "its packets are lost unless it is run and committed"]
pub enum Job {
    /// Packets that are to become trains.
    Seal(Box<SealJob>),
    /// A train whose packets are to be opened.
    Open(Box<OpenJob>),
}

impl Job {
    /// Does the work.
    pub fn run(&mut self) {
        match self {
            Self::Seal(job) => job.run(),
            Self::Open(job) => job.run(),
        }
    }
}

/// Packets of one peer that leave the same way, and the trains they become.
///
/// A packet joins the train before it as far as one system call can send both: segments of one size, only the last one
/// shorter. A super-packet that would fit whole into a new train begins one, so that trains on this end are super-packets
/// on the other (limits.md, lesson 2).
#[derive(Debug)]
pub struct SealJob {
    pub(crate) number: u64,
    pub(crate) route: Route,
    pub(crate) channel: Option<ChannelNumber>,
    pool: Pool,
    packets: Vec<Leaving>,
    counters: Vec<wireguard::Sealing>,
    /// The bytes of its packets.
    pub(crate) bytes: usize,
    pub(crate) trains: Vec<Transmit>,
}

/// A packet, and how many of its first segments are left out.
#[derive(Debug)]
struct Leaving {
    packet: SuperPacket<Buffer>,
    skip: usize,
}

impl SealJob {
    /// Creates one whose trains lie in buffers of `pool`.
    pub(crate) fn new(
        pool: Pool,
        number: u64,
        route: Route,
        channel: Option<ChannelNumber>,
    ) -> Self {
        Self {
            number,
            route,
            channel,
            pool,
            packets: Vec::new(),
            counters: Vec::new(),
            bytes: 0,
            trains: Vec::new(),
        }
    }

    /// Makes another job of one that is done with; its memory stays.
    pub(crate) fn renew(&mut self, number: u64, route: Route, channel: Option<ChannelNumber>) {
        (self.number, self.route, self.channel, self.bytes) = (number, route, channel, 0);
        self.packets.clear();
        self.counters.clear();
        self.trains.clear();
    }

    /// Adds a packet without its first `skip` segments; as many counters as it has others follow by
    /// [`add_counter`](Self::add_counter).
    pub(crate) fn add(&mut self, packet: SuperPacket<Buffer>, skip: usize) {
        self.bytes += packet.bytes().len();
        self.packets.push(Leaving { packet, skip });
    }

    pub(crate) fn add_counter(&mut self, counter: wireguard::Sealing) {
        self.counters.push(counter);
    }

    fn run(&mut self) {
        let Self {
            route,
            channel,
            pool,
            packets,
            counters,
            trains,
            ..
        } = self;
        let header_len = channel.map_or(0, |_| channel::HEADER_LEN);
        let datagram_len = |packet_len| header_len + wireguard::sealed_len(packet_len);
        let mut counters = counters.drain(..);

        for mut leaving in packets.drain(..) {
            let count = leaving.packet.segments().saturating_sub(leaving.skip);
            let size = datagram_len(leaving.packet.segment_len());
            let total =
                size * count.saturating_sub(1) + datagram_len(leaving.packet.last_segment_len());
            let limit = max_len(route.dst, size);
            let mut is_first = true;
            let mut skip = leaving.skip;
            let mut segments = leaving.packet.split();
            while let Some(segment) = segments.next_segment() {
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                let Some(counter) = counters.next() else {
                    break;
                };
                let len = datagram_len(segment.len());
                let is_start = std::mem::take(&mut is_first);
                let needs = if is_start && total <= limit {
                    total
                } else {
                    len
                };
                let joins = trains
                    .last()
                    .is_some_and(|train| has_room_for(train, len, needs));
                if !joins {
                    trains.push(Transmit {
                        route: *route,
                        segment_size: len,
                        payload: pool.take(0),
                    });
                }
                if let Some(train) = trains.last_mut() {
                    seal_into(&mut train.payload, *channel, header_len, segment, counter);
                }
            }
        }
        // Of what could not be sealed nothing leaves.
        trains.retain(|train| !train.payload.is_empty());
    }
}

/// Whether a datagram of `len` bytes can follow in `train`, the first of datagrams that take `needs` in all.
fn has_room_for(train: &Transmit, len: usize, needs: usize) -> bool {
    let limit = max_len(train.route.dst, train.segment_size);
    let is_full = train.payload.len().is_multiple_of(train.segment_size);

    is_full && len <= train.segment_size && train.payload.len() + needs <= limit
}

fn seal_into(
    train: &mut Buffer,
    channel: Option<ChannelNumber>,
    header_len: usize,
    segment: &[u8],
    counter: wireguard::Sealing,
) {
    let len = wireguard::sealed_len(segment.len());
    let before = train.len();
    let is_sealed = train.extend(header_len + len).is_some_and(|slot| {
        let Some((front, sealed)) = slot.split_at_mut_checked(header_len) else {
            return false;
        };
        if let Some(header) = channel.and_then(|channel| channel::header(channel, len)) {
            front.copy_from_slice(&header);
        }
        counter.seal(segment, sealed).is_ok()
    });
    // There is room, and a packet is never empty; should one fail all the same, it fails alone.
    if !is_sealed {
        train.truncate(before);
    }
}

/// Data datagrams of one train.
#[derive(Debug, Default)]
pub struct OpenJob {
    pub(crate) number: u64,
    received: Option<Received>,
    pub(crate) senders: Vec<Sender>,
    arriving: Vec<Arriving>,
    pub(crate) opened: Vec<Opened>,
    /// Where the packets lie once they are opened.
    pub(crate) memory: Option<Buffer>,
}

/// Who sent datagrams, and which way they came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender {
    pub(crate) peer: PeerId,
    pub(crate) tunnel: TunnelId,
    pub(crate) origin: Origin,
}

/// A datagram and the key it is opened with.
#[derive(Debug)]
struct Arriving {
    sender: usize,
    /// Where it lies in the train.
    range: Range<usize>,
    opening: wireguard::Opening,
}

/// A packet that awaits its place in the replay window.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Which of the senders it is from.
    pub(crate) sender: usize,
    pub(crate) datagram_len: usize,
    pub(crate) message: wireguard::Opened,
}

impl OpenJob {
    /// Adds a sender, whose number is what the datagrams that follow are added with.
    pub(crate) fn add_sender(&mut self, sender: Sender) -> usize {
        self.senders.push(sender);

        self.senders.len() - 1
    }

    /// Adds the datagram at `range` of the train.
    pub(crate) fn add(&mut self, sender: usize, range: Range<usize>, opening: wireguard::Opening) {
        self.arriving.push(Arriving {
            sender,
            range,
            opening,
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.arriving.is_empty()
    }

    /// Gives it the train that its datagrams lie in, and memory for their packets.
    pub(crate) fn begin(&mut self, number: u64, received: Received, memory: Buffer) {
        self.number = number;
        self.received = Some(received);
        self.memory = Some(memory);
    }

    /// The number that its train had when it was received.
    pub(crate) fn train_number(&self) -> u64 {
        self.received.as_ref().map_or(0, |received| received.number)
    }

    pub(crate) fn clear(&mut self) {
        self.received = None;
        self.memory = None;
        self.senders.clear();
        self.arriving.clear();
        self.opened.clear();
    }

    fn run(&mut self) {
        let (Some(received), Some(memory)) = (&self.received, &mut self.memory) else {
            return;
        };
        for arriving in self.arriving.drain(..) {
            let Some(datagram) = received.bytes.get(arriving.range) else {
                continue;
            };
            let start = memory.len();
            let Some(slot) = memory.extend(datagram.len()) else {
                continue;
            };
            let message = arriving.opening.open(datagram, slot, start);
            // The next one begins where this one's packet ends.
            memory.truncate(message.end().unwrap_or(start));
            self.opened.push(Opened {
                sender: arriving.sender,
                datagram_len: datagram.len(),
                message,
            });
        }
    }
}

#[cfg(test)]
mod tests;
