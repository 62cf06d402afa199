//! Questions.

use super::code::{RecordType, class};
use super::message::{self, HEADER, Header, Malformed, Record, Walk, flag};
use super::name::Name;
use super::respond::push_opt;
use super::{MAX_UDP_ANSWER, UDP_SIZE};

/// What an answer may have without EDNS, in bytes (RFC 1035 §4.2.1).
const PLAIN_UDP_ANSWER: usize = 512;

/// The bit of an OPT record's flags that asks for DNSSEC's records (RFC 3225).
pub(super) const DNSSEC_OK: u16 = 0x8000;

/// A question as it was asked; owns its bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Query {
    /// The asker's number for it.
    pub id: u16,
    /// The kind of request; zero for an ordinary one.
    pub opcode: u8,
    /// Whether the server is to ask others.
    pub recursion_desired: bool,
    /// Whether the asker understands the answer's AD bit (RFC 6840 §5.7).
    pub authentic_data: bool,
    /// Whether the asker wants what fails validation, too.
    pub checking_disabled: bool,
    /// The name.
    pub name: Name,
    /// The type.
    pub record_type: RecordType,
    /// The class; see [`class`].
    pub class: u16,
    /// What the asker's OPT record said.
    pub edns: Option<Edns>,
    /// Name, type and class as they were asked: resolvers check that the case of letters comes back.
    pub(super) question: Box<[u8]>,
}

/// What an OPT record says of its sender (RFC 6891 §6.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Edns {
    /// The largest answer that it takes by UDP, in bytes.
    pub udp_size: u16,
    /// The version of EDNS. There is only zero; what has another is answered with [`Rcode::BADVERS`](super::Rcode::BADVERS).
    pub version: u8,
    /// Whether it wants DNSSEC's records.
    pub dnssec_ok: bool,
}

impl Default for Edns {
    fn default() -> Self {
        Self {
            udp_size: UDP_SIZE,
            version: 0,
            dnssec_ok: false,
        }
    }
}

/// Why bytes are not a question.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Shorter than a header.
    #[error("{0} bytes are too few for a DNS message")]
    Short(usize),
    /// An answer.
    #[error("it is an answer, not a question")]
    NotAQuery,
    /// None, or several: nobody says what the latter would mean.
    #[error("it asks {0} questions instead of one")]
    Questions(u16),
    /// The message contradicts itself.
    #[error("malformed question: {0}")]
    Malformed(#[from] Malformed),
}

impl Query {
    /// Understands a request; the records it has beside the question are walked, but only OPT is kept.
    ///
    /// # Errors
    ///
    /// [`QueryError`], by what is wrong.
    pub fn parse(message: &[u8]) -> Result<Self, QueryError> {
        let header = Header::read(message).ok_or(QueryError::Short(message.len()))?;
        if header.flags & flag::QR != 0 {
            return Err(QueryError::NotAQuery);
        }
        let [1, ..] = header.counts else {
            let [questions, ..] = header.counts;
            return Err(QueryError::Questions(questions));
        };

        // The first name has nothing to point back to, so that these bytes are all of it.
        let mut walk = Walk::new(message);
        walk.question()?;
        let question = message.get(HEADER..walk.at()).unwrap_or_default();
        walk.records(header.counts, |_| {})?;
        let (_, [k0, k1, c0, c1]) = question.split_last_chunk().ok_or(Malformed::CutOff)?;
        let long = Malformed::LongName { at: HEADER };

        Ok(Self {
            id: header.id,
            opcode: header.opcode(),
            recursion_desired: header.flags & flag::RD != 0,
            authentic_data: header.flags & flag::AD != 0,
            checking_disabled: header.flags & flag::CD != 0,
            name: message::name(message, HEADER).ok_or(long)?,
            record_type: RecordType(u16::from_be_bytes([*k0, *k1])),
            class: u16::from_be_bytes([*c0, *c1]),
            edns: walk.opt.map(|opt| Edns::read(&opt, message)),
            question: question.into(),
        })
    }

    /// A question of our own: of class IN, with recursion and EDNS. Its number is zero until
    /// [`to_upstream`](Self::to_upstream) gives it one.
    pub fn new(name: &Name, record_type: RecordType) -> Self {
        let mut question = name.to_wire();
        question.extend_from_slice(&record_type.0.to_be_bytes());
        question.extend_from_slice(&class::IN.to_be_bytes());

        Self {
            id: 0,
            opcode: 0,
            recursion_desired: true,
            authentic_data: false,
            checking_disabled: false,
            name: name.clone(),
            record_type,
            class: class::IN,
            edns: Some(Edns::default()),
            question: question.into(),
        }
    }

    /// Writes what is asked of a server in our name: the question, RD, AD and CD as they were asked, under our `id`.
    ///
    /// With `edns` it has an OPT record that offers [`UDP_SIZE`] bytes and passes DO on. Nothing else of what the asker
    /// sent goes along: its options are between it and us (RFC 6891 §6.2.6).
    pub fn to_upstream(&self, id: u16, edns: bool) -> Vec<u8> {
        let mut flags = self.copied_flags();
        if self.authentic_data {
            flags |= flag::AD;
        }
        let header = Header {
            id,
            flags,
            counts: [1, 0, 0, edns.into()],
        };
        let mut message = Vec::with_capacity(HEADER + self.question.len() + 11);
        header.write(&mut message);
        message.extend_from_slice(&self.question);
        if edns {
            let dnssec_ok = self.edns.is_some_and(|edns| edns.dnssec_ok);
            push_opt(&mut message, 0, dnssec_ok, None);
        }

        message
    }

    /// The most bytes of an answer by UDP: 512 without EDNS, else what the asker offers but at least 512; never more than
    /// [`MAX_UDP_ANSWER`].
    pub fn max_udp_answer(&self) -> usize {
        self.edns.map_or(PLAIN_UDP_ANSWER, |edns| {
            usize::from(edns.udp_size).clamp(PLAIN_UDP_ANSWER, MAX_UDP_ANSWER)
        })
    }

    /// The flags that an answer has in common with its question: opcode, RD and CD.
    pub(super) fn copied_flags(&self) -> u16 {
        let mut flags = u16::from(self.opcode) << 11 & flag::OPCODE;
        if self.recursion_desired {
            flags |= flag::RD;
        }
        if self.checking_disabled {
            flags |= flag::CD;
        }

        flags
    }
}

impl Edns {
    fn read(opt: &Record, message: &[u8]) -> Self {
        let [_, version, f0, f1] = opt.raw_ttl(message).to_be_bytes();

        Self {
            udp_size: opt.class,
            version,
            dnssec_ok: u16::from_be_bytes([f0, f1]) & DNSSEC_OK != 0,
        }
    }
}
