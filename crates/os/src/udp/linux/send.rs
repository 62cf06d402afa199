//! Cutting trains into what the kernel takes at once.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::slice;

use connlib_wire::train::{MAX_SEGMENTS, max_len};

use super::Segmentation;
use crate::sys::udp::{Message, Parts};
use crate::udp::{Outgoing, Payload};

/// The most parts of one message: those of 64 datagrams with a header of their own each. The kernel would take 1024.
const MAX_PARTS: usize = 128;

/// What one message carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a> {
    pub(super) message: Message<'a>,
    pub(super) datagrams: usize,
}

/// What is left of some trains, in messages.
pub(super) struct Chunks<'t, 'a> {
    trains: slice::Iter<'t, Outgoing<'a>>,
    train: Option<&'t Outgoing<'a>>,
    /// The first datagram of `train` that isn't in a message yet.
    next: usize,
    local: SocketAddr,
    segmentation: Segmentation,
}

impl<'t, 'a> Chunks<'t, 'a> {
    /// Begins `skip` datagrams behind those that had left before.
    pub(super) fn new(
        trains: &'t [Outgoing<'a>],
        mut skip: usize,
        local: SocketAddr,
        segmentation: Segmentation,
    ) -> Self {
        let mut trains = trains.iter();
        let mut train = trains.next();
        while let Some(skipped) = train
            && skipped.left() <= skip
        {
            skip -= skipped.left();
            train = trains.next();
        }

        Self {
            trains,
            train,
            next: train.map_or(0, |train| train.first.saturating_add(skip)),
            local,
            segmentation,
        }
    }

    fn cut(&self, train: &Outgoing<'a>, total: usize) -> io::Result<Chunk<'a>> {
        if !train.suits(self.local) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the addresses of the datagrams are not of this socket's family",
            ));
        }

        let end = total.min(self.next.saturating_add(self.segments_per_message(train)));
        let payload = train.slice(self.next..end).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the parts of a train don't add up to datagrams of its size",
            )
        })?;
        let payload = match payload {
            Payload::Contiguous(bytes) => Parts::One(IoSlice::new(bytes)),
            Payload::Gathered { parts, .. } => Parts::Many(parts),
        };
        let datagrams = end - self.next;
        let segment = if datagrams > 1 {
            let size = u16::try_from(train.segment_size.max(1));
            Some(size.map_err(|_| io::ErrorKind::InvalidInput)?)
        } else {
            None
        };

        Ok(Chunk {
            message: Message {
                payload,
                route: train.route,
                segment,
            },
            datagrams,
        })
    }

    fn segments_per_message(&self, train: &Outgoing<'_>) -> usize {
        if matches!(self.segmentation, Segmentation::Off) {
            return 1;
        }
        let size = train.segment_size.max(1);
        let by_bytes = max_len(train.route.dst, size) / size;
        let by_parts = match train.payload {
            Payload::Contiguous(_) => MAX_SEGMENTS,
            Payload::Gathered { per_datagram, .. } => MAX_PARTS / per_datagram.max(1),
        };

        by_bytes.min(by_parts).clamp(1, MAX_SEGMENTS)
    }
}

impl<'a> Iterator for Chunks<'_, 'a> {
    /// An error concerns the first datagram that is in no message yet; there is nothing behind it.
    type Item = io::Result<Chunk<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (train, total) = loop {
            let train = self.train?;
            let total = train.segments();
            if self.next < total {
                break (train, total);
            }
            self.train = self.trains.next();
            self.next = self.train.map_or(0, |train| train.first);
        };

        let chunk = self.cut(train, total);
        match &chunk {
            Ok(chunk) => self.next += chunk.datagrams,
            Err(_) => self.train = None,
        }

        Some(chunk)
    }
}
