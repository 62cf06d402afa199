//! The shape that all messages share: header, questions, records, and names that point back into the message.

use super::code::{RecordType, class};
use super::name::Name;

/// The length of the header.
pub(super) const HEADER: usize = 12;

/// The most pointers that one name follows: one for each of the labels that a name may have.
const MAX_POINTERS: usize = 127;

/// The most octets of a name (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;

/// What is wrong in a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// It ends inside of something, or says that it has more records than there are.
    #[error("it ends too early")]
    CutOff,
    /// Bytes behind its last record.
    #[error("there are bytes behind its last record")]
    Trailing,
    /// A label of neither kind.
    #[error("a label at byte {at} is of an unknown kind")]
    LabelKind {
        /// Where.
        at: usize,
    },
    /// A pointer that doesn't lead back to a name, or where there may be none.
    #[error("the pointer at byte {at} leads nowhere")]
    Pointer {
        /// Where.
        at: usize,
    },
    /// A name of more than 255 octets.
    #[error("the name at byte {at} is too long")]
    LongName {
        /// Where.
        at: usize,
    },
    /// A record that isn't as long as its type demands.
    #[error("the data of a record of type {kind} contradicts its length")]
    RecordData {
        /// Its type.
        kind: RecordType,
    },
    /// An OPT record that is not the only one, or not where it should be.
    #[error("an OPT record is out of place")]
    Opt,
}

/// Bits of the header's second word.
pub(super) mod flag {
    pub(in super::super) const QR: u16 = 0x8000;
    pub(in super::super) const OPCODE: u16 = 0x7800;
    pub(in super::super) const TC: u16 = 0x0200;
    pub(in super::super) const RD: u16 = 0x0100;
    pub(in super::super) const RA: u16 = 0x0080;
    pub(in super::super) const AD: u16 = 0x0020;
    pub(in super::super) const CD: u16 = 0x0010;
    pub(in super::super) const RCODE: u16 = 0x000F;
}

/// The header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) id: u16,
    pub(super) flags: u16,
    /// Of questions and of the three sections' records.
    pub(super) counts: [u16; 4],
}

impl Header {
    /// `None` if the message is shorter.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let (words, _) = message.first_chunk::<HEADER>()?.as_chunks::<2>();
        let mut words = words.iter().map(|word| u16::from_be_bytes(*word));
        let (id, flags) = (words.next()?, words.next()?);
        let mut counts = [0; 4];
        for (count, word) in counts.iter_mut().zip(words) {
            *count = word;
        }

        Some(Self { id, flags, counts })
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        for word in [self.id, self.flags].into_iter().chain(self.counts) {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }

    pub(super) fn opcode(self) -> u8 {
        // Four bits.
        ((self.flags & flag::OPCODE) >> 11) as u8
    }
}

/// Which part of a message a record is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Section {
    Answer,
    Authority,
    Additional,
}

/// Where a record lies; all of it is inside the message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) section: Section,
    pub(super) kind: RecordType,
    pub(super) class: u16,
    /// Where its name begins.
    pub(super) owner_at: usize,
    /// Where its time to live is.
    pub(super) ttl_at: usize,
    /// Where it ends.
    pub(super) end: usize,
}

impl Record {
    /// Where its data begins.
    pub(super) fn data_at(&self) -> usize {
        self.ttl_at + 6
    }

    pub(super) fn data<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        message.get(self.data_at()..self.end).unwrap_or_default()
    }

    /// The four bytes where others have their time to live; OPT has other things there.
    pub(super) fn raw_ttl(&self, message: &[u8]) -> u32 {
        u32_at(message, self.ttl_at).unwrap_or_default()
    }

    /// Its time to live in seconds. One with the highest bit set means zero (RFC 2181 §8).
    pub(super) fn ttl(&self, message: &[u8]) -> u32 {
        let ttl = self.raw_ttl(message);
        if ttl > i32::MAX as u32 { 0 } else { ttl }
    }
}

/// Walks a message from front to back, and checks all of it.
pub(super) struct Walk<'a> {
    message: &'a [u8],
    at: usize,
    pub(super) opt: Option<Record>,
    /// Whether names behind the OPT record would change if it were taken out, because they point to what moves.
    pub(super) points_past_opt: bool,
    /// Whether a name points to where we saw none: into data that we don't understand, or between names.
    pub(super) points_astray: bool,
    /// Where labels, and pointers in the place of labels, were seen; ascending, as they were.
    labels: Vec<usize>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self {
            message,
            at: HEADER,
            opt: None,
            points_past_opt: false,
            points_astray: false,
            labels: Vec::with_capacity(16),
        }
    }

    /// Where it is.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn question(&mut self) -> Result<(), Malformed> {
        let end = self.name(self.at)? + 4;
        if end > self.message.len() {
            return Err(Malformed::CutOff);
        }
        self.at = end;

        Ok(())
    }

    /// Walks all records, and makes sure that nothing is left.
    pub(super) fn records(
        &mut self,
        counts: [u16; 4],
        mut each: impl FnMut(Record),
    ) -> Result<(), Malformed> {
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        for (section, count) in sections.into_iter().zip(counts.into_iter().skip(1)) {
            for _ in 0..count {
                each(self.record(section)?);
            }
        }
        if self.at < self.message.len() {
            return Err(Malformed::Trailing);
        }

        Ok(())
    }

    fn record(&mut self, section: Section) -> Result<Record, Malformed> {
        let owner_at = self.at;
        let fixed = self.name(owner_at)?;
        let fields = self
            .message
            .get(fixed..)
            .and_then(|rest| rest.first_chunk::<10>())
            .ok_or(Malformed::CutOff)?;
        let [k0, k1, c0, c1, _, _, _, _, l0, l1] = *fields;
        let record = Record {
            section,
            kind: RecordType(u16::from_be_bytes([k0, k1])),
            class: u16::from_be_bytes([c0, c1]),
            owner_at,
            ttl_at: fixed + 4,
            end: fixed + 10 + usize::from(u16::from_be_bytes([l0, l1])),
        };
        if record.end > self.message.len() {
            return Err(Malformed::CutOff);
        }

        if record.kind == RecordType::OPT {
            let root = fixed == owner_at + 1;
            if self.opt.is_some() || !root || section != Section::Additional {
                return Err(Malformed::Opt);
            }
            self.opt = Some(record);
        }
        self.data(&record)?;
        self.at = record.end;

        Ok(record)
    }

    /// Checks the data of the types whose data we, or whoever we pass it to, look into.
    fn data(&mut self, record: &Record) -> Result<(), Malformed> {
        let error = Malformed::RecordData { kind: record.kind };
        let len = record.end - record.data_at();
        // What stands before the names, how many there are, and what stands behind.
        let (before, names, behind) = match record.kind {
            RecordType::A if record.class == class::IN => (4, 0, 0),
            RecordType::AAAA if record.class == class::IN => (16, 0, 0),
            RecordType::CNAME | RecordType::NS | RecordType::PTR | RecordType::DNAME => (0, 1, 0),
            RecordType::MX => (2, 1, 0),
            RecordType::SRV => (6, 1, 0),
            RecordType::SOA => (0, 2, 20),
            _ => return Ok(()),
        };
        if len < before + names + behind {
            return Err(error);
        }
        let mut at = record.data_at() + before;
        for _ in 0..names {
            at = self.name(at)?;
        }

        (at + behind == record.end).then_some(()).ok_or(error)
    }

    /// Checks a name and says where it ends.
    fn name(&mut self, start: usize) -> Result<usize, Malformed> {
        let mut at = start;
        // Behind a pointer everything lies in front of what was read before: so there is no loop, and a name never depends
        // on what follows it.
        let (mut behind, mut limit) = (start, self.message.len());
        let mut end = None;
        let (mut len, mut pointers) = (1, 0);
        loop {
            let first = *self.message.get(at).ok_or(Malformed::CutOff)?;
            if end.is_none() {
                self.labels.push(at);
            }
            let next = match first {
                0 => at + 1,
                1..=63 => at + 1 + usize::from(first),
                0xC0.. => at + 2,
                64..=0xBF => return Err(Malformed::LabelKind { at }),
            };
            if next > limit {
                let cut_off = Malformed::CutOff;
                return Err(end.map_or(cut_off, |_| Malformed::Pointer { at }));
            }
            match first {
                0 => return Ok(end.unwrap_or(next)),
                1..=63 => {
                    len += next - at;
                    at = next;
                    if len > MAX_NAME {
                        return Err(Malformed::LongName { at: start });
                    }
                }
                _ => {
                    let second = *self.message.get(at + 1).ok_or(Malformed::CutOff)?;
                    let target = usize::from(u16::from_be_bytes([first & 0x3F, second]));
                    pointers += 1;
                    if target < HEADER || target >= behind || pointers > MAX_POINTERS {
                        return Err(Malformed::Pointer { at });
                    }
                    let astray = self.labels.binary_search(&target).is_err();
                    self.points_astray |= astray;
                    self.points_past_opt |=
                        self.opt.is_some_and(|opt| astray || target >= opt.owner_at);
                    end = end.or(Some(next));
                    (limit, behind, at) = (behind, target, target);
                }
            }
        }
    }
}

/// The labels of the name at `at`, with pointers followed; ends early where the name is malformed.
pub(super) fn labels(message: &[u8], mut at: usize) -> impl Iterator<Item = &[u8]> {
    let mut pointers = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = message.get(at..)?;
            match *rest {
                [len @ 1..=63, ..] => {
                    let end = 1 + usize::from(len);
                    at += end;
                    return rest.get(1..end);
                }
                [first @ 0xC0..=0xFF, second, ..] if pointers < MAX_POINTERS => {
                    pointers += 1;
                    at = usize::from(u16::from_be_bytes([first & 0x3F, second]));
                }
                _ => return None,
            }
        }
    })
}

/// Whether two names of a message are equal, ASCII case aside.
pub(super) fn same_name(message: &[u8], left: usize, right: usize) -> bool {
    let (mut left, mut right) = (labels(message, left), labels(message, right));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(left), Some(right)) if left.eq_ignore_ascii_case(right) => {}
            _ => return false,
        }
    }
}

/// The bytes of a message's question, if it is the only one and its name whole.
pub(super) fn one_question<'a>(message: &'a [u8], header: &Header) -> Option<&'a [u8]> {
    let [1, ..] = header.counts else {
        return None;
    };
    let mut walk = Walk::new(message);
    walk.question().ok()?;

    message.get(HEADER..walk.at())
}

/// Whether two questions ask the same, ASCII case aside.
pub(super) fn same_question(left: &[u8], right: &[u8]) -> bool {
    let (Some((left, left_type)), Some((right, right_type))) =
        (left.split_last_chunk::<4>(), right.split_last_chunk::<4>())
    else {
        return false;
    };

    // The length of a label is below every letter, so that lengths may be compared like letters.
    left_type == right_type && left.eq_ignore_ascii_case(right)
}

/// The name at `at`. A checked one is never too long.
pub(super) fn name(message: &[u8], at: usize) -> Option<Name> {
    Name::from_labels(labels(message, at)).ok()
}

pub(super) fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..)?.first_chunk()?;

    Some(u32::from_be_bytes(*bytes))
}

/// Overwrites what is there; nothing if it doesn't fit.
pub(super) fn put<const N: usize>(message: &mut [u8], at: usize, new: [u8; N]) {
    if let Some(slot) = message
        .get_mut(at..)
        .and_then(|rest| rest.first_chunk_mut())
    {
        *slot = new;
    }
}
