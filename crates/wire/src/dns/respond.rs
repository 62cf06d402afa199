//! Answers made here.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::code::{Rcode, RecordType};
use super::message::{HEADER, Header, flag};
use super::name::Name;
use super::query::{DNSSEC_OK, Query};
use super::{MAX_MESSAGE, UDP_SIZE};

/// A pointer to the question's name, which is where each message has it.
const QUESTION: [u8; 2] = [0xC0, HEADER as u8];

/// The length of an OPT record without options.
const OPT_LEN: usize = 11;

/// The longest text of an extended error, in bytes. It is for people, and must leave room for the answer.
const MAX_TEXT: usize = 200;

/// The option that carries an extended error (RFC 8914 §2).
const EXTENDED_ERROR: u16 = 15;

/// Why a question got no better answer (RFC 8914).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExtendedError {
    /// What kind of reason it is.
    pub code: u16,
    /// The reason for people to read; what exceeds 200 bytes is cut off.
    pub text: Cow<'static, str>,
}

impl ExtendedError {
    /// A reason that only the text tells.
    pub const OTHER: u16 = 0;
    /// The answer is older than it may be; there was no newer one.
    pub const STALE_ANSWER: u16 = 3;
    /// The answer was made up by policy.
    pub const FORGED_ANSWER: u16 = 4;
    /// The server can't answer yet.
    pub const NOT_READY: u16 = 14;
    /// Whoever runs the server doesn't want the name reached.
    pub const BLOCKED: u16 = 15;
    /// Someone else made it so that the name isn't reached.
    pub const CENSORED: u16 = 16;
    /// The asker doesn't want the name reached.
    pub const FILTERED: u16 = 17;
    /// The asker may not ask here.
    pub const PROHIBITED: u16 = 18;
    /// The server doesn't answer such questions.
    pub const NOT_SUPPORTED: u16 = 21;
    /// No server that would know was reached.
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;
    /// Talking to another server failed.
    pub const NETWORK_ERROR: u16 = 23;

    /// A reason of kind `code`.
    pub fn new(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// The first reason among the options of an OPT record (RFC 6891 §6.1.2).
    pub(super) fn among(mut options: &[u8]) -> Option<Self> {
        loop {
            let (&[a, b, c, d], rest) = options.split_first_chunk()?;
            let (option, rest) = rest.split_at_checked(u16::from_be_bytes([c, d]).into())?;
            if u16::from_be_bytes([a, b]) == EXTENDED_ERROR {
                let (code, text) = option.split_first_chunk()?;
                // Some servers end it with a zero (RFC 8914 §2).
                let text = text.strip_suffix(&[0]).unwrap_or(text);
                let text = String::from_utf8_lossy(text).into_owned();
                return Some(Self::new(u16::from_be_bytes(*code), text));
            }
            options = rest;
        }
    }

    fn text(&self) -> &[u8] {
        let end = self.text.floor_char_boundary(MAX_TEXT);

        self.text.as_bytes().get(..end).unwrap_or_default()
    }
}

/// What a record of an answer says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The name of an address.
    Ptr(Name),
}

/// Makes an answer, with `records` that may be kept for `ttl` seconds.
///
/// Id, opcode, RD, CD and the question's bytes are the query's; RA is set; AA, AD and TC are not. Records belong to the
/// question's name. Where the query has an OPT record the answer has one: it offers [`UDP_SIZE`], repeats DO and
/// holds `error`. A code above 15 can't be said without and becomes [`Rcode::SERVFAIL`]. Records that would make
/// the message larger than 65,535 bytes are left out; whoever sends by UDP keeps to [`Query::max_udp_answer`].
pub fn respond(
    query: &Query,
    rcode: Rcode,
    ttl: u32,
    records: &[Data],
    error: Option<&ExtendedError>,
) -> Vec<u8> {
    let error = error.filter(|_| query.edns.is_some());
    let opt = opt_len(query, error);
    let mut message = Vec::with_capacity(HEADER + query.question.len() + records.len() * 28 + opt);
    let header = Header {
        id: query.id,
        flags: answer_flags(query, rcode),
        counts: [1, 0, 0, query.edns.is_some().into()],
    };
    header.write(&mut message);
    message.extend_from_slice(&query.question);

    let mut count = 0_u16;
    for record in records {
        let end = message.len();
        push_record(&mut message, query.class, ttl, record);
        if message.len() + opt > MAX_MESSAGE {
            message.truncate(end);
            break;
        }
        count += 1; // Each has 12 bytes at least.
    }
    super::message::put(&mut message, 6, count.to_be_bytes());
    push_answer_opt(&mut message, query, rcode, error);

    message
}

fn push_record(message: &mut Vec<u8>, class: u16, ttl: u32, data: &Data) {
    let mut push = |kind: RecordType, data: &[u8]| {
        message.extend_from_slice(&QUESTION);
        message.extend_from_slice(&kind.0.to_be_bytes());
        message.extend_from_slice(&class.to_be_bytes());
        message.extend_from_slice(&ttl.to_be_bytes());
        // A name has 255 bytes at most.
        message.extend_from_slice(&(data.len() as u16).to_be_bytes());
        message.extend_from_slice(data);
    };

    match data {
        Data::A(ip) => push(RecordType::A, &ip.octets()),
        Data::Aaaa(ip) => push(RecordType::AAAA, &ip.octets()),
        Data::Ptr(name) => push(RecordType::PTR, &name.to_wire()),
    }
}

/// The code that can be said to the asker.
pub(super) fn sayable(query: &Query, rcode: Rcode) -> Rcode {
    if rcode.0 > flag::RCODE && query.edns.is_none() {
        Rcode::SERVFAIL
    } else {
        rcode
    }
}

/// The flags of an answer to `query`, without those that only some have.
pub(super) fn answer_flags(query: &Query, rcode: Rcode) -> u16 {
    query.copied_flags() | flag::QR | flag::RA | sayable(query, rcode).0 & flag::RCODE
}

/// The length of the OPT record that answers the query's.
pub(super) fn opt_len(query: &Query, error: Option<&ExtendedError>) -> usize {
    match (query.edns, error) {
        (None, _) => 0,
        (Some(_), None) => OPT_LEN,
        (Some(_), Some(error)) => OPT_LEN + 6 + error.text().len(),
    }
}

/// Writes the OPT record that answers the query's, if it has one.
pub(super) fn push_answer_opt(
    message: &mut Vec<u8>,
    query: &Query,
    rcode: Rcode,
    error: Option<&ExtendedError>,
) {
    if let Some(edns) = query.edns {
        // Codes have twelve bits (RFC 6891 §6.1.3).
        let upper = (rcode.0 >> 4) as u8;
        push_opt(message, upper, edns.dnssec_ok, error);
    }
}

/// Writes our OPT record.
pub(super) fn push_opt(
    message: &mut Vec<u8>,
    upper_rcode: u8,
    dnssec_ok: bool,
    error: Option<&ExtendedError>,
) {
    let text = error.map_or(&[] as &[u8], ExtendedError::text);
    let options_len = error.map_or(0, |_| 6 + text.len());
    let flags = if dnssec_ok { DNSSEC_OK } else { 0 };

    message.push(0); // The root's name.
    for word in [RecordType::OPT.0, UDP_SIZE] {
        message.extend_from_slice(&word.to_be_bytes());
    }
    message.extend_from_slice(&[upper_rcode, 0]);
    message.extend_from_slice(&flags.to_be_bytes());
    // Texts are cut to fit.
    message.extend_from_slice(&(options_len as u16).to_be_bytes());
    if let Some(error) = error {
        for word in [EXTENDED_ERROR, 2 + text.len() as u16, error.code] {
            message.extend_from_slice(&word.to_be_bytes());
        }
        message.extend_from_slice(text);
    }
}
