//! What the crate `domain` says of our messages, and we of its.

use domain::base::{Message, MessageBuilder, Rtype, StaticCompressor, Ttl};
use domain::rdata::{A, Aaaa, Cname, Mx, Soa};
use proptest::prelude::*;

use super::properties::some_record;
use super::*;

type Theirs = domain::base::Name<Vec<u8>>;

fn theirs(text: &str) -> Theirs {
    text.parse().unwrap()
}

/// Type and time to live of every record, as they read it; fails where they can't.
fn walked(message: &[u8]) -> Vec<(u16, u32)> {
    let message = Message::from_octets(message).unwrap();
    let mut seen = Vec::new();
    for record in message.iter() {
        let (record, _) = record.unwrap();
        match record.rtype() {
            Rtype::A if record.class().to_int() == class::IN => {
                record.to_record::<A>().unwrap().unwrap();
            }
            Rtype::AAAA if record.class().to_int() == class::IN => {
                record.to_record::<Aaaa>().unwrap().unwrap();
            }
            Rtype::CNAME => {
                record.to_record::<Cname<_>>().unwrap().unwrap();
            }
            Rtype::MX => {
                record.to_record::<Mx<_>>().unwrap().unwrap();
            }
            Rtype::SOA => {
                record.to_record::<Soa<_>>().unwrap().unwrap();
            }
            _ => {}
        }
        seen.push((record.rtype().to_int(), record.ttl().as_secs()));
    }

    seen
}

#[test]
fn their_compressed_answer_is_understood() {
    let (wiki, www) = (theirs("wiki.corp.test"), theirs("www.corp.test"));
    let (zone, ttl) = (theirs("corp.test"), Ttl::from_secs);
    let target = StaticCompressor::new(Vec::new());
    let mut message = MessageBuilder::from_target(target).unwrap();
    message.header_mut().set_id(7);
    message.header_mut().set_qr(true);
    let mut message = message.question();
    message.push((&wiki, Rtype::A)).unwrap();
    let mut message = message.answer();
    message.push((&wiki, 60, Cname::new(&www))).unwrap();
    message
        .push((&www, 50, A::from_octets(10, 0, 0, 1)))
        .unwrap();
    let mut message = message.authority();
    let soa = Soa::new(&zone, &wiki, 1.into(), ttl(2), ttl(3), ttl(4), ttl(5));
    message.push((&zone, 40, soa)).unwrap();
    let mut message = message.additional();
    message.push((&zone, 30, Mx::new(10, &www))).unwrap();
    message
        .opt(|opt| {
            opt.set_dnssec_ok(true);
            Ok(())
        })
        .unwrap();
    let bytes = message.finish().into_target();

    let answer = Answer::parse(bytes.clone()).unwrap();
    let query = asked(RecordType::A);
    assert!(answer.answers(&query, 7));
    let addresses: Vec<_> = answer.addresses().collect();
    assert_eq!(addresses, [("10.0.0.1".parse().unwrap(), 50)]);
    assert_eq!(answer.keep_for(&query), Some(50));
    let expected = [(5, 60), (1, 50), (6, 40), (15, 30)];
    assert_eq!(walked(&answer.for_asker(&query, 0, 512, None)), expected);

    let mut request = bytes;
    request[2] = 0;
    assert!(Query::parse(&request).unwrap().edns.unwrap().dnssec_ok);
}

proptest! {
    #[test]
    fn they_read_what_we_do(
        records in prop::collection::vec((0_usize..3, some_record()), 0..6),
        age in 0_u32..100,
    ) {
        let mut message = Built::answer("wiki.corp.test", RecordType::A);
        message.records = records;
        let Ok(answer) = Answer::parse(message.bytes()) else {
            return Ok(());
        };
        let seen = walked(answer.bytes());
        prop_assert_eq!(seen.len(), message.records.len());
        // They refuse an OPT record for its options, which we don't look into.
        let theirs = Message::from_octets(answer.bytes()).unwrap();
        if let Some(opt) = theirs.opt() {
            prop_assert_eq!(Rcode(opt.rcode(theirs.header()).to_int()), answer.rcode());
        }

        let query = asked_with_edns(0x8000);
        let passed_on = answer.for_asker(&query, age, 65_535, None);
        let theirs = Message::from_octets(&passed_on[..]).unwrap();
        prop_assert_eq!(Rcode(theirs.opt_rcode().to_int()), answer.rcode());
        prop_assert!(theirs.opt().unwrap().dnssec_ok());
        let aged = walked(&passed_on);
        prop_assert!(aged.len() <= seen.len() + 1);
        prop_assert_eq!(aged.last().map(|(kind, _)| *kind), Some(RecordType::OPT.0));
    }

    #[test]
    fn they_read_our_names_alike(text in "[a-c0-9.\\\\]{0,12}") {
        if let (Ok(ours), Ok(theirs)) = (Name::parse(&text), text.parse::<Theirs>()) {
            // `\070` is a capital letter to them.
            prop_assert_eq!(ours.to_wire(), theirs.as_slice().to_ascii_lowercase());
        }
    }
}
