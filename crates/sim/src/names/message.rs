//! DNS messages (RFC 1035 §4), as far as the world needs them.

use std::net::IpAddr;

/// Codes of answers.
pub(crate) mod code {
    pub(crate) const NOERROR: u8 = 0;
    pub(crate) const SERVFAIL: u8 = 2;
    pub(crate) const NXDOMAIN: u8 = 3;
    pub(crate) const REFUSED: u8 = 5;
}

const HEADER: usize = 12;
const QR: u16 = 0x8000;
const TC: u16 = 0x0200;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;
const IN: u16 = 1;
const OPT: u16 = 41;

/// What we say that we take by UDP.
const UDP_SIZE: u16 = 1_232;

/// How often a name may point elsewhere.
const MAX_POINTERS: usize = 16;

/// A message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Message {
    pub(crate) id: u16,
    flags: u16,
    /// The only question: a name in lower case, and a type.
    pub(crate) question: Option<(String, u16)>,
    /// Its name as it was spelt.
    pub(crate) spelt: Vec<u8>,
    pub(crate) answers: Vec<Record>,
    /// What the sender takes by UDP, if it speaks EDNS.
    pub(crate) edns: Option<u16>,
}

/// A record of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    pub(crate) owner: String,
    pub(crate) kind: u16,
    pub(crate) ttl: u32,
    pub(crate) data: Vec<u8>,
}

impl Message {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk::<2>()?));
        let mut message = Self {
            id: word(0)?,
            flags: word(2)?,
            ..Self::default()
        };
        let counts = [word(4)?, word(6)?, word(8)?, word(10)?];
        let mut at = HEADER;
        for nth in 0..counts[0] {
            let (name, end) = name_at(bytes, at)?;
            let kind = word(end)?;
            word(end + 2)?;
            at = end + 4;
            if nth == 0 && counts[0] == 1 {
                message.question = Some((name, kind));
                message.spelt = bytes.get(HEADER..end).unwrap_or_default().to_vec();
            }
        }
        for (section, count) in counts.into_iter().enumerate().skip(1) {
            for _ in 0..count {
                let (owner, end) = name_at(bytes, at)?;
                let (kind, class) = (word(end)?, word(end + 2)?);
                let ttl = u32::from(word(end + 4)?) << 16 | u32::from(word(end + 6)?);
                let len = usize::from(word(end + 8)?);
                let data = bytes.get(end + 10..end + 10 + len)?.to_vec();
                at = end + 10 + len;
                if kind == OPT {
                    message.edns = Some(class);
                } else if section == 1 {
                    message.answers.push(Record {
                        owner,
                        kind,
                        ttl,
                        data,
                    });
                }
            }
        }

        (at == bytes.len()).then_some(message)
    }

    pub(crate) fn is_answer(&self) -> bool {
        self.flags & QR != 0
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.flags & TC != 0
    }

    /// The code, without the upper bits of an OPT record.
    pub(crate) fn code(&self) -> u8 {
        (self.flags & 0xf) as u8
    }

    /// The data of its records of a type, sorted.
    pub(crate) fn data(&self, kind: u16) -> Vec<Vec<u8>> {
        let records = self.answers.iter().filter(|record| record.kind == kind);
        let mut data: Vec<Vec<u8>> = records.map(|record| record.data.clone()).collect();
        data.sort_unstable();

        data
    }

    /// What answers it.
    pub(crate) fn answer(&self, code: u8, ttl: u32, kind: u16, data: &[Vec<u8>]) -> Vec<u8> {
        let flags = QR | RA | self.flags & RD | u16::from(code);

        self.reply(flags, ttl, kind, data)
    }

    /// What says that the answer is longer.
    pub(crate) fn truncated(&self) -> Vec<u8> {
        self.reply(QR | RA | TC | self.flags & RD, 0, 0, &[])
    }

    fn reply(&self, flags: u16, ttl: u32, kind: u16, data: &[Vec<u8>]) -> Vec<u8> {
        let count = u16::try_from(data.len()).unwrap_or_default();
        let mut bytes = Vec::new();
        for word in [self.id, flags, 1, count, 0, u16::from(self.edns.is_some())] {
            bytes.extend(word.to_be_bytes());
        }
        if let Some((_, asked)) = &self.question {
            bytes.extend(&self.spelt);
            bytes.extend(asked.to_be_bytes());
            bytes.extend(IN.to_be_bytes());
        }
        for data in data {
            bytes.extend([0xc0, HEADER as u8]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend(IN.to_be_bytes());
            bytes.extend(ttl.to_be_bytes());
            bytes.extend(u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
            bytes.extend(data);
        }
        if self.edns.is_some() {
            push_opt(&mut bytes);
        }

        bytes
    }
}

/// Asks for a name, with recursion and EDNS.
pub(crate) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [id, RD, 1, 0, 0, 1] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(to_name(name));
    bytes.extend(kind.to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    push_opt(&mut bytes);

    bytes
}

fn push_opt(bytes: &mut Vec<u8>) {
    bytes.push(0);
    bytes.extend(OPT.to_be_bytes());
    bytes.extend(UDP_SIZE.to_be_bytes());
    bytes.extend([0; 6]);
}

/// The address that a record of an address has.
pub(crate) fn to_ip(data: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(data).map(IpAddr::from);

    v4.or_else(|_| <[u8; 16]>::try_from(data).map(IpAddr::from))
        .ok()
}

/// The data of a record that has an address.
pub(crate) fn of_ip(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// A name as messages have it.
pub(crate) fn to_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap_or(63));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);

    bytes
}

/// Reads a name in lower case, and where it ends.
fn name_at(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut labels, mut end, mut pointers) = (Vec::new(), None, 0);
    loop {
        let len = *bytes.get(at)?;
        match len {
            0 => break,
            1..64 => {
                let label = bytes.get(at + 1..at + 1 + usize::from(len))?;
                labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
                at += 1 + usize::from(len);
            }
            192.. => {
                end.get_or_insert(at + 2);
                at = usize::from(len & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
                pointers += 1;
                if pointers > MAX_POINTERS {
                    return None;
                }
            }
            _ => return None,
        }
    }

    Some((labels.join("."), end.unwrap_or(at + 1)))
}

/// A message behind its length (RFC 1035 §4.2.2).
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).unwrap_or(u16::MAX);

    [&len.to_be_bytes(), message].concat()
}

/// Takes the first message out of a stream.
pub(crate) fn unframed(stream: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (len, rest) = stream.split_first_chunk::<2>()?;
    let message = rest.get(..usize::from(u16::from_be_bytes(*len)))?.to_vec();
    stream.drain(..message.len() + 2);

    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_are_written() {
        let asked = query(7, "Wiki.corp.test", 1);
        let message = Message::parse(&asked).unwrap();
        assert_eq!(message.question, Some(("wiki.corp.test".to_owned(), 1)));
        assert_eq!((message.id, message.edns), (7, Some(UDP_SIZE)));
        assert!(!message.is_answer());

        let answer = message.answer(
            code::NOERROR,
            60,
            1,
            &[vec![10, 0, 0, 2], vec![10, 0, 0, 1]],
        );
        let answer = Message::parse(&answer).unwrap();
        assert!(answer.is_answer() && answer.code() == code::NOERROR);
        assert_eq!(answer.data(1), [[10, 0, 0, 1], [10, 0, 0, 2]]);
        assert_eq!(answer.answers[0].owner, "wiki.corp.test");
        assert!(Message::parse(&message.truncated()).unwrap().is_truncated());
    }

    #[test]
    fn streams_are_taken_apart() {
        let mut stream = [framed(b"one"), framed(b"two")].concat();
        let half = stream.split_off(7);
        assert_eq!(unframed(&mut stream).as_deref(), Some(&b"one"[..]));
        assert_eq!(unframed(&mut stream), None);
        stream.extend(half);
        assert_eq!(unframed(&mut stream).as_deref(), Some(&b"two"[..]));
    }

    #[test]
    fn bytes_that_are_none_are_refused() {
        assert_eq!(Message::parse(&[0; 11]), None);
        let mut asked = query(1, "a.test", 1);
        asked.push(0);
        assert_eq!(Message::parse(&asked), None);
    }
}
