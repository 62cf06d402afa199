use super::*;
use std::net::Ipv4Addr;

fn refused(message: &[u8]) -> QueryError {
    Query::parse(message).unwrap_err()
}

#[test]
fn a_question_is_understood() {
    let built = Built::query("wiki.corp.test", RecordType::HTTPS).flags(0x2930);
    let query = Query::parse(&built.bytes()).unwrap();

    assert_eq!((query.id, query.opcode), (0x1234, 5));
    assert!(query.recursion_desired && query.authentic_data && query.checking_disabled);
    assert_eq!(query.name, name("wiki.corp.test"));
    assert_eq!(
        (query.record_type, query.class),
        (RecordType::HTTPS, class::IN)
    );
    assert_eq!(query.edns, None);

    let plain = asked(RecordType::A);
    assert!(plain.recursion_desired && !plain.authentic_data && !plain.checking_disabled);
}

#[test]
fn edns_is_understood_wherever_it_stands() {
    let tsig = record(&[0], RecordType::TSIG, 0, &[]);
    let built = Built::query("a", RecordType::A)
        .with(2, opt(1_400, 0x0001_8000, b"\0\x03\0\0"))
        .with(2, tsig);
    let edns = Query::parse(&built.bytes()).unwrap().edns.unwrap();
    assert_eq!(
        (edns.udp_size, edns.version, edns.dnssec_ok),
        (1_400, 1, true)
    );

    let twice = built.with(2, opt(1_400, 0, &[]));
    assert_eq!(refused(&twice.bytes()), Malformed::Opt.into());
    for section in [0, 1] {
        let misplaced = Built::query("a", RecordType::A).with(section, opt(1_400, 0, &[]));
        assert_eq!(refused(&misplaced.bytes()), Malformed::Opt.into());
    }
    let mut named = opt(1_400, 0, &[]);
    named.splice(..1, [1, b'x', 0]);
    let named = Built::query("a", RecordType::A).with(2, named);
    assert_eq!(refused(&named.bytes()), Malformed::Opt.into());
}

#[test]
fn what_is_no_question_is_refused() {
    let good = Built::query("wiki.corp.test", RecordType::A).bytes();
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        refused(&bytes)
    };

    for len in 0..12 {
        assert_eq!(refused(&good[..len]), QueryError::Short(len));
    }
    for len in 12..good.len() {
        assert_eq!(refused(&good[..len]), Malformed::CutOff.into());
    }
    assert_eq!(with(2, 0x81), QueryError::NotAQuery);
    assert_eq!(with(5, 0), QueryError::Questions(0));
    assert_eq!(with(4, 1), QueryError::Questions(257));
    assert_eq!(
        with(11, 1),
        Malformed::CutOff.into(),
        "a record that is not there"
    );
    assert_eq!(
        refused(&[&good[..], &[0]].concat()),
        Malformed::Trailing.into()
    );
    assert_eq!(with(12, 0x40), Malformed::LabelKind { at: 12 }.into(), "64");
    assert_eq!(with(12, 0x80), Malformed::LabelKind { at: 12 }.into());

    // The question has nothing in front to point to; itself would be a loop, later ones are forward.
    for (first, second) in [(0xC0, 12), (0xC0, 14), (0xC0, 0), (0xFF, 0xFF)] {
        let mut bytes = good.clone();
        bytes.splice(12..28, [first, second]);
        assert_eq!(refused(&bytes), Malformed::Pointer { at: 12 }.into());
    }
    let mut late = good.clone();
    late[17] = 0xC0; // wiki, and then back to it
    late[18] = 12;
    assert_eq!(refused(&late), Malformed::Pointer { at: 17 }.into());
}

#[test]
fn a_name_of_256_octets_is_too_long() {
    let label = |len: u8| [vec![len], vec![b'a'; len.into()]].concat();
    let with_last = |last: u8| {
        let wire = [label(63), label(63), label(63), label(last), vec![0]].concat();
        let question = question(&wire, RecordType::A);
        (
            wire.len(),
            Query::parse(
                &Built {
                    question,
                    ..Built::query("a", RecordType::A)
                }
                .bytes(),
            ),
        )
    };
    let (len, longest) = with_last(61);
    assert_eq!((len, longest.unwrap().name.as_str().len()), (255, 253));
    let (len, too_long) = with_last(62);
    assert_eq!(len, 256);
    assert_eq!(too_long, Err(Malformed::LongName { at: 12 }.into()));
}

#[test]
fn only_the_question_goes_to_a_server() {
    let built = Built::query("WiKi.corp.test", RecordType::A).flags(0x0130);
    let mut bytes = built.bytes();
    bytes[13] = b'W';
    let query = Query::parse(&bytes).unwrap();

    let plain = query.to_upstream(0xABCD, false);
    assert_eq!(plain[..2], [0xAB, 0xCD]);
    assert_eq!(plain[2..], bytes[2..], "flags and case as asked");
    let edns = query.to_upstream(0xABCD, true);
    assert_eq!(edns[11], 1);
    assert_eq!(edns[bytes.len()..], [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);

    let cookie = opt(4_096, 0x0000_8000, b"\0\x0A\0\x08cookies!");
    let with_cookie = Built::query("wiki.corp.test", RecordType::A).with(2, cookie);
    let query = Query::parse(&with_cookie.bytes()).unwrap();
    let edns = query.to_upstream(1, true);
    assert_eq!(
        edns[edns.len() - 11..],
        [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]
    );
    assert_eq!(query.to_upstream(1, false).len(), edns.len() - 11);
}

#[test]
fn our_own_questions_read_back() {
    let query = Query::new(&name(r"a\.b.test"), RecordType::SRV);
    let read = Query::parse(&query.to_upstream(7, true)).unwrap();
    assert_eq!(
        read,
        Query {
            id: 7,
            ..query.clone()
        }
    );
    let answer = Answer::parse(respond(&read, Rcode::NOERROR, 1, &[], None)).unwrap();
    assert!(answer.answers(&query, 7) && !answer.answers(&query, 8));
    assert!(Query::parse(&Query::new(&name("."), RecordType::NS).to_upstream(7, false)).is_ok());
}

#[test]
fn answers_by_udp_are_bounded() {
    assert_eq!(asked(RecordType::A).max_udp_answer(), 512);
    for (offered, max) in [
        (0, 512),
        (512, 512),
        (1_000, 1_000),
        (1_232, 1_212),
        (u16::MAX, 1_212),
    ] {
        let mut query = asked_with_edns(0);
        query.edns.as_mut().unwrap().udp_size = offered;
        assert_eq!(query.max_udp_answer(), max);
    }
}

#[test]
fn an_answer_made_here_repeats_the_question() {
    let mut bytes = Built::query("wiki.corp.test", RecordType::A)
        .flags(0x0130)
        .bytes();
    bytes[13..17].copy_from_slice(b"wIKi");
    let query = Query::parse(&bytes).unwrap();
    let ips = [1, 2].map(|n| Data::A(Ipv4Addr::new(100, 96, 0, n)));
    let message = respond(
        &query,
        Rcode::NOERROR,
        1,
        &ips,
        Some(&ExtendedError::new(0, "x")),
    );

    let mut expected = bytes.clone();
    expected[2..4].copy_from_slice(&[0x81, 0x90]); // QR, RD, RA, CD
    expected[7] = 2;
    for last in [1, 2] {
        expected.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 100, 96, 0, last]);
    }
    assert_eq!(message, expected, "no OPT, for there was none");

    let v6 = respond(
        &query,
        Rcode::NOERROR,
        1,
        &[Data::Aaaa("::1".parse().unwrap())],
        None,
    );
    assert_eq!(
        v6[v6.len() - 28..][..12],
        [0xC0, 12, 0, 28, 0, 1, 0, 0, 0, 1, 0, 16]
    );
    let ptr = respond(&query, Rcode::NOERROR, 9, &[Data::Ptr(name("a.b"))], None);
    assert!(ptr.ends_with(b"\0\x0C\0\x01\0\0\0\x09\0\x05\x01a\x01b\0"));
    let none = respond(&query, Rcode::NXDOMAIN, 1, &[], None);
    assert_eq!((none[3], none.len()), (0x93, bytes.len()));
}

#[test]
fn the_reason_is_told_where_there_is_an_opt_record() {
    let error = ExtendedError::new(ExtendedError::PROHIBITED, "ask an admin");
    let message = respond(
        &asked_with_edns(0x8000),
        Rcode::REFUSED,
        1,
        &[],
        Some(&error),
    );
    let opt = [
        &[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 18, 0, 15, 0, 14, 0, 18][..],
        b"ask an admin",
    ]
    .concat(); // RFC 8914 §2
    assert!(message.ends_with(&opt));
    assert_eq!(message[11], 1);

    let long = ExtendedError::new(0, "ä".repeat(40_000));
    let message = respond(&asked_with_edns(0), Rcode::REFUSED, 1, &[], Some(&long));
    assert_eq!(
        message.len(),
        asked(RecordType::A).question.len() + 12 + 11 + 6 + 200
    );
    assert!(Answer::parse(message).is_ok());
}

#[test]
fn an_unknown_version_of_edns_is_told_with_all_bits() {
    let query = asked_with_edns(0x0001_0000);
    assert_eq!(query.edns.unwrap().version, 1);
    let message = respond(&query, Rcode::BADVERS, 0, &[], None);
    assert_eq!(message[3] & 0xF, 0);
    assert!(
        message.ends_with(&[0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]),
        "we speak version 0"
    );
    assert_eq!(Answer::parse(message).unwrap().rcode(), Rcode::BADVERS);

    let plain = respond(&asked(RecordType::A), Rcode::BADVERS, 0, &[], None);
    assert_eq!(Answer::parse(plain).unwrap().rcode(), Rcode::SERVFAIL);
}

#[test]
fn more_records_than_fit_are_left_out() {
    let records = vec![Data::A(Ipv4Addr::LOCALHOST); 70_000];
    let message = respond(&asked_with_edns(0), Rcode::NOERROR, 0, &records, None);
    assert!(message.len() <= 65_535 && message.len() > 65_500);
    assert!(Answer::parse(message).unwrap().addresses().count() > 4_000);
}
