//! Messages for the tests, byte by byte.

mod answers;
mod malformed;
mod names;
mod properties;
mod queries;
mod second_opinion;

use super::*;

const CNAME: RecordType = RecordType::CNAME;

/// A pointer to the question's name.
const QUESTION: [u8; 2] = [0xC0, 12];

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// A message that a test describes.
#[derive(Clone)]
struct Built {
    id: u16,
    flags: u16,
    question: Vec<u8>,
    /// Each with the number of its section, from zero.
    records: Vec<(usize, Vec<u8>)>,
}

impl Built {
    fn query(text: &str, kind: RecordType) -> Self {
        Self {
            id: 0x1234,
            flags: 0x0100,
            question: question(&name(text).to_wire(), kind),
            records: Vec::new(),
        }
    }

    fn answer(text: &str, kind: RecordType) -> Self {
        Self::query(text, kind).flags(0x8180)
    }

    fn flags(self, flags: u16) -> Self {
        Self { flags, ..self }
    }

    fn with(mut self, section: usize, record: Vec<u8>) -> Self {
        self.records.push((section, record));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let count = |n| self.records.iter().filter(|(of, _)| *of == n).count() as u16;
        let mut bytes = Vec::new();
        for word in [self.id, self.flags, 1, count(0), count(1), count(2)] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(&self.question);
        for section in 0..3 {
            let records = self.records.iter().filter(|(of, _)| *of == section);
            bytes.extend(records.flat_map(|(_, record)| record.clone()));
        }
        bytes
    }

    fn parsed(&self) -> Answer {
        Answer::parse(self.bytes()).unwrap()
    }
}

fn wiki() -> Built {
    Built::answer("wiki.corp.test", RecordType::A)
}

fn question(wire: &[u8], kind: RecordType) -> Vec<u8> {
    [wire, &kind.0.to_be_bytes(), &[0, 1]].concat()
}

fn record(owner: &[u8], kind: RecordType, ttl: u32, data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u16).to_be_bytes();
    [
        owner,
        &kind.0.to_be_bytes(),
        &[0, 1],
        &ttl.to_be_bytes(),
        &len,
        data,
    ]
    .concat()
}

fn a(owner: &[u8], ttl: u32, last: u8) -> Vec<u8> {
    record(owner, RecordType::A, ttl, &[10, 0, 0, last])
}

fn soa(ttl: u32, minimum: u32) -> Vec<u8> {
    let numbers = [1, 2, 3, 4, minimum].map(u32::to_be_bytes).concat();
    let data = [&QUESTION[..], &[1, b'h', 0], &numbers].concat();
    record(&QUESTION, RecordType::SOA, ttl, &data)
}

fn opt(udp_size: u16, ttl: u32, options: &[u8]) -> Vec<u8> {
    let mut bytes = record(&[0], RecordType::OPT, ttl, options);
    bytes[3..5].copy_from_slice(&udp_size.to_be_bytes());
    bytes
}

/// The query for `wiki.corp.test`.
fn asked(kind: RecordType) -> Query {
    Query::parse(&Built::query("wiki.corp.test", kind).bytes()).unwrap()
}

/// The same with EDNS.
fn asked_with_edns(ttl: u32) -> Query {
    let query = Built::query("wiki.corp.test", RecordType::A).with(2, opt(4_096, ttl, &[]));
    Query::parse(&query.bytes()).unwrap()
}

#[test]
fn numbers_are_shown_by_name() {
    assert_eq!(RecordType::AAAA.to_string(), "AAAA");
    assert_eq!(format!("{:?}", RecordType(65_280)), "TYPE65280");
    assert_eq!(Rcode::BADVERS.to_string(), "BADVERS");
    assert_eq!(format!("{:?}", Rcode(9)), "RCODE9");
}

#[test]
fn an_answer_is_told_from_strangers() {
    let sent = Built::query("wiki.corp.test", RecordType::A);
    let good = Built::answer("wiki.corp.test", RecordType::A);
    let is = |message: &Built| is_answer_to(&sent.bytes(), &message.bytes());
    let with = |change: fn(&mut Built)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed
    };

    assert!(is(&good));
    assert!(is(&with(|m| m.question[1] = b'W')), "0x20");
    assert!(!is(&sent), "a question");
    assert!(!is(&with(|m| m.id += 1)));
    assert!(!is(&with(|m| m.flags |= 0x0800)), "another opcode");
    assert!(!is(&with(|m| m.question[1] = b'x')));
    assert!(!is(&with(|m| *m.question.last_mut().unwrap() = 3)), "class");
    assert!(!is(&Built::answer("wiki.corp.test", RecordType::AAAA)));
    assert!(!is(&Built::answer("corp.test", RecordType::A)));
    let mut two = good.bytes();
    two[5] = 2;
    assert!(!is_answer_to(&sent.bytes(), &two));
    assert!(!is_answer_to(&good.bytes(), &good.bytes()));
    for len in 0..good.bytes().len() {
        assert!(!is_answer_to(&sent.bytes(), &good.bytes()[..len]));
        assert!(!is_answer_to(&sent.bytes()[..len], &good.bytes()));
    }
}
