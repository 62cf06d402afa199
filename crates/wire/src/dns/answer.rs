//! Answers of servers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::code::{Rcode, RecordType};
use super::message::{
    HEADER, Header, Malformed, Record, Section, Walk, flag, put, same_name, same_question,
};
use super::query::Query;
use super::respond::{ExtendedError, answer_flags, opt_len, push_answer_opt, respond, sayable};
use super::{MAX_MESSAGE, class};

/// The most other names that are followed from one question.
const MAX_CHAIN: usize = 16;

/// The most CNAME records that a chain is looked for in. Each step compares names, which can be made long.
const MAX_ALIASES: usize = 64;

/// A server's answer whose every record was checked; owns its bytes.
#[derive(Clone, Debug)]
pub struct Answer {
    bytes: Vec<u8>,
    header: Header,
    rcode: Rcode,
    /// Where the questions end.
    questions_end: usize,
    /// All records but OPT.
    records: Vec<Record>,
    opt: Option<Record>,
    /// Whether names behind the OPT record need it where it is.
    points_past_opt: bool,
    /// Whether names may lie where we write; see [`for_asker`](Self::for_asker).
    points_astray: bool,
}

/// Why bytes are not an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// Shorter than a header.
    #[error("{0} bytes are too few for a DNS message")]
    Short(usize),
    /// Longer than a message can be.
    #[error("{0} bytes are more than the {MAX_MESSAGE} of a DNS message")]
    Long(usize),
    /// A question.
    #[error("it is a question, not an answer")]
    NotAnAnswer,
    /// The message contradicts itself.
    #[error("malformed answer: {0}")]
    Malformed(#[from] Malformed),
}

impl Answer {
    /// Understands an answer of up to 65,535 bytes, and checks every record of it.
    ///
    /// # Errors
    ///
    /// [`AnswerError`], by what is wrong.
    pub fn parse(message: Vec<u8>) -> Result<Self, AnswerError> {
        if message.len() > MAX_MESSAGE {
            return Err(AnswerError::Long(message.len()));
        }
        let header = Header::read(&message).ok_or(AnswerError::Short(message.len()))?;
        if header.flags & flag::QR == 0 {
            return Err(AnswerError::NotAnAnswer);
        }

        let mut walk = Walk::new(&message);
        let [questions, ..] = header.counts;
        for _ in 0..questions {
            walk.question()?;
        }
        let questions_end = walk.at();
        let mut records = Vec::new();
        walk.records(header.counts, |record| {
            if record.kind != RecordType::OPT {
                records.push(record);
            }
        })?;
        let (opt, points_past_opt) = (walk.opt, walk.points_past_opt);
        let points_astray = walk.points_astray;
        let upper = opt.map_or(0, |opt| opt.raw_ttl(&message) >> 24);

        Ok(Self {
            header,
            // Twelve bits.
            rcode: Rcode((upper << 4) as u16 | header.flags & flag::RCODE),
            questions_end,
            records,
            opt,
            points_past_opt,
            points_astray,
            bytes: message,
        })
    }

    /// Its number.
    pub fn id(&self) -> u16 {
        self.header.id
    }

    /// How the question fared, with the upper bits of the OPT record.
    pub fn rcode(&self) -> Rcode {
        self.rcode
    }

    /// Whether a part of it is missing and must be asked for by TCP.
    pub fn is_truncated(&self) -> bool {
        self.header.flags & flag::TC != 0
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes of memory it takes, about.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity() + self.records.capacity() * size_of::<Record>()
    }

    /// Why the server has no better answer, if it says so: the first extended error of its OPT record (RFC 8914).
    pub fn reason(&self) -> Option<ExtendedError> {
        let options = self.opt?;

        ExtendedError::among(options.data(&self.bytes))
    }

    /// Whether it answers what [`query.to_upstream(id, …)`](Query::to_upstream) asked: number, opcode and the one question,
    /// the case of letters aside.
    pub fn answers(&self, query: &Query, id: u16) -> bool {
        self.header.id == id
            && self.header.opcode() == query.opcode
            && self
                .question()
                .is_some_and(|question| same_question(question, &query.question))
    }

    /// How long it may be kept, in seconds (RFC 2181 §5.2, RFC 2308 §5); `None` if not at all.
    ///
    /// That is the least time to live of the answer section. Where a name or a record of the type doesn't exist, it is also at
    /// most the SOA record's time to live and what that record says of such answers; without one the answer can't be kept,
    /// and neither can a truncated one, or one with another code.
    pub fn keep_for(&self, query: &Query) -> Option<u32> {
        if self.is_truncated() {
            return None;
        }
        let answers = self
            .section(Section::Answer)
            .map(|record| record.ttl(&self.bytes));
        let least = answers.min();
        match self.rcode {
            Rcode::NOERROR if self.has(query.record_type) => least,
            Rcode::NOERROR | Rcode::NXDOMAIN => {
                let negative = self.keep_negative()?;
                Some(least.map_or(negative, |least| least.min(negative)))
            }
            _ => None,
        }
    }

    /// Whether it says that the name, or a record of the type, doesn't exist.
    pub fn is_negative(&self, query: &Query) -> bool {
        self.rcode == Rcode::NXDOMAIN || !self.has(query.record_type)
    }

    fn keep_negative(&self) -> Option<u32> {
        let soa = self
            .section(Section::Authority)
            .find(|record| record.kind == RecordType::SOA)?;
        let minimum = soa.data(&self.bytes).last_chunk::<4>()?;

        Some(soa.ttl(&self.bytes).min(u32::from_be_bytes(*minimum)))
    }

    /// Whether the chain of names ends at a record of `kind`.
    fn has(&self, kind: RecordType) -> bool {
        // These don't follow the name's other names.
        if matches!(kind, RecordType::ANY | RecordType::CNAME) {
            return self.section(Section::Answer).any(|record| {
                (kind == RecordType::ANY || record.kind == kind)
                    && same_name(&self.bytes, record.owner_at, HEADER)
            });
        }
        let Some(chain) = self.chain() else {
            return false;
        };

        self.section(Section::Answer)
            .any(|record| record.kind == kind && same_name(&self.bytes, record.owner_at, chain.end))
    }

    /// The addresses in the answer section that its CNAME records lead to from the question, each with the seconds for
    /// which it may be kept: the least of its own and of the names on the way. Chains have 16 names at most.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let chain = self.chain();

        self.section(Section::Answer).filter_map(move |record| {
            let chain = chain?;
            let ip = self.address(record)?;
            let ttl = chain.ttl.min(record.ttl(&self.bytes));

            same_name(&self.bytes, record.owner_at, chain.end).then_some((ip, ttl))
        })
    }

    fn address(&self, record: &Record) -> Option<IpAddr> {
        let data = record.data(&self.bytes);
        if record.class != class::IN {
            return None;
        }
        match record.kind {
            RecordType::A => Some(Ipv4Addr::from(*data.first_chunk::<4>()?).into()),
            RecordType::AAAA => Some(Ipv6Addr::from(*data.first_chunk::<16>()?).into()),
            _ => None,
        }
    }

    /// Follows the names from the question; `None` without one question, or if they go round or on for too long. Of more than
    /// 64 CNAME records the first count.
    fn chain(&self) -> Option<Chain> {
        self.question()?;
        let mut chain = Chain {
            end: HEADER,
            ttl: u32::MAX,
        };
        for _ in 0..=MAX_CHAIN {
            let next = self
                .section(Section::Answer)
                .filter(|record| record.kind == RecordType::CNAME)
                .take(MAX_ALIASES)
                .find(|record| same_name(&self.bytes, record.owner_at, chain.end));
            let Some(next) = next else {
                return Some(chain);
            };
            chain = Chain {
                end: next.data_at(),
                ttl: chain.ttl.min(next.ttl(&self.bytes)),
            };
        }

        None
    }

    /// The answer as its asker gets it, `age` seconds after it came.
    ///
    /// Number, question, RD and CD are the asker's; RA is set, AA is not; AD stays only for an asker that asked with AD
    /// or DO (RFC 6840 §5.8). Times to live are less by `age`, down to zero. The OPT record, which was between the server and
    /// us, is replaced by ours as for [`respond`], with `error` if that fits. What is longer than `max` bytes becomes
    /// the header and the question, with TC.
    ///
    /// An answer to another question becomes [`Rcode::SERVFAIL`], and so does one in which names depend on times to live.
    pub fn for_asker(
        &self,
        query: &Query,
        age: u32,
        max: usize,
        error: Option<&ExtendedError>,
    ) -> Vec<u8> {
        // Names point into the question, which must be laid out alike.
        let same = |question| same_question(question, &query.question);
        if !self.question().is_some_and(same) {
            return respond(query, Rcode::SERVFAIL, 0, &[], error);
        }

        let cut = self.cut();
        let whole = self.bytes.len() - (cut.end - cut.start);
        let fits = |len: usize, error| len + opt_len(query, error) <= max;
        // The reason is dropped before the answer is (RFC 8914 §3).
        let truncate = !fits(whole, None);
        let len = if truncate { self.questions_end } else { whole };
        let error = error.filter(|error| fits(len, Some(*error)));
        let rcode = sayable(query, self.rcode);

        let mut out = Vec::with_capacity(len + opt_len(query, error));
        self.header_for(query, truncate, &cut).write(&mut out);
        out.extend_from_slice(&query.question);
        if !truncate {
            let [before, behind] = [self.questions_end..cut.start, cut.end..self.bytes.len()];
            out.extend_from_slice(self.bytes.get(before).unwrap_or_default());
            out.extend_from_slice(self.bytes.get(behind).unwrap_or_default());
            if age > 0 {
                self.age(&mut out, age, &cut);
            }
        }
        push_answer_opt(&mut out, query, rcode, error);

        // Names that point astray may run through times to live, which were changed.
        if self.points_astray && age > 0 && Self::parse(out.clone()).is_err() {
            return respond(query, Rcode::SERVFAIL, 0, &[], error);
        }

        out
    }

    fn header_for(&self, query: &Query, truncate: bool, cut: &Cut) -> Header {
        let [_, answers, authorities, _] = self.header.counts;
        let opt = u16::from(query.edns.is_some());
        let mut flags = answer_flags(query, self.rcode) | self.header.flags & flag::TC;
        let counts = if truncate {
            flags |= flag::TC;
            [1, 0, 0, opt]
        } else {
            let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
            if query.authentic_data || dnssec_ok {
                flags |= self.header.flags & flag::AD;
            }
            // A message has no room for 65,535 records.
            [1, answers, authorities, cut.additional + opt]
        };

        Header {
            id: query.id,
            flags,
            counts,
        }
    }

    /// What is left out for an asker: the OPT record, and where names can do without it nothing else.
    fn cut(&self) -> Cut {
        let additional = self.section(Section::Additional);
        match self.opt {
            None => Cut {
                start: self.bytes.len(),
                end: self.bytes.len(),
                additional: additional.count() as u16,
            },
            Some(opt) if self.points_past_opt => Cut {
                start: opt.owner_at,
                end: self.bytes.len(),
                additional: additional
                    .filter(|record| record.end <= opt.owner_at)
                    .count() as u16,
            },
            Some(opt) => Cut {
                start: opt.owner_at,
                end: opt.end,
                additional: additional.count() as u16,
            },
        }
    }

    fn age(&self, out: &mut [u8], age: u32, cut: &Cut) {
        for record in &self.records {
            let at = match record.ttl_at {
                at if at < cut.start => at,
                at if at < cut.end => continue,
                at => at - (cut.end - cut.start),
            };
            let ttl = record.ttl(&self.bytes).saturating_sub(age);
            put(out, at, ttl.to_be_bytes());
        }
    }

    /// The same without its additional section: addresses in there would lead around the tunnel.
    ///
    /// [`rcode`](Self::rcode) stays what it was, though its upper bits are no longer in the bytes.
    #[must_use]
    pub fn without_additional(mut self) -> Self {
        let first = self.section(Section::Additional).next();
        let starts = [first, self.opt.as_ref()];
        let start = starts.into_iter().flatten().map(|record| record.owner_at);
        if let Some(start) = start.min() {
            self.bytes.truncate(start);
        }
        self.records
            .retain(|record| record.section != Section::Additional);
        (self.opt, self.points_past_opt) = (None, false);
        let [questions, answers, authorities, _] = self.header.counts;
        self.header.counts = [questions, answers, authorities, 0];
        put(&mut self.bytes, 10, [0; 2]);

        self
    }

    /// The bytes of its question, if it has only one.
    fn question(&self) -> Option<&[u8]> {
        let [1, ..] = self.header.counts else {
            return None;
        };

        self.bytes.get(HEADER..self.questions_end)
    }

    fn section(&self, section: Section) -> impl Iterator<Item = &Record> {
        self.records
            .iter()
            .filter(move |record| record.section == section)
    }
}

/// Where a chain of names leads.
#[derive(Clone, Copy)]
struct Chain {
    /// Where the last name lies.
    end: usize,
    /// How long all of it may be kept.
    ttl: u32,
}

/// What is left out of the bytes, and how many additional records remain.
struct Cut {
    start: usize,
    end: usize,
    additional: u16,
}
