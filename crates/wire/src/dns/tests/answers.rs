use super::*;

fn cname(from: &str, to: &str, ttl: u32) -> Vec<u8> {
    record(&name(from).to_wire(), CNAME, ttl, &name(to).to_wire())
}

#[test]
fn sixty_four_kibibytes_are_understood() {
    let data_len = 65_535 - wiki().bytes().len() - 12;
    let large = wiki().with(0, record(&QUESTION, RecordType::TXT, 1, &vec![7; data_len]));
    let answer = large.parsed();
    assert_eq!(answer.bytes().len(), 65_535);
    let passed_on = answer.for_asker(&asked(RecordType::A), 1, 65_535, None);
    assert_eq!(passed_on.len(), 65_535);

    let more = [large.bytes(), vec![0]].concat();
    assert_eq!(Answer::parse(more).unwrap_err(), AnswerError::Long(65_536));
    let many = (0..4_000).fold(wiki(), |message, n| message.with(0, a(&QUESTION, n, 1)));
    assert_eq!(many.parsed().addresses().count(), 4_000);
}

#[test]
fn an_answer_must_fit_the_question() {
    let answer = wiki().parsed();
    let query = asked(RecordType::A);
    assert!(answer.answers(&query, 0x1234));
    assert!(!answer.answers(&query, 0x1235));
    assert!(!answer.answers(&asked(RecordType::AAAA), 0x1234));
    let other = Query::new(&name("wiki.corp.tesu"), RecordType::A);
    assert!(!answer.answers(&other, 0x1234));
    assert!(
        !wiki().flags(0x8980).parsed().answers(&query, 0x1234),
        "opcode"
    );
    let mut upper = wiki();
    upper.question[1] = b'W';
    assert!(upper.parsed().answers(&query, 0x1234));

    // What doesn't fit is nothing to pass on.
    let failed = Answer::parse(
        Built::answer("x", RecordType::A)
            .parsed()
            .for_asker(&query, 0, 512, None),
    );
    assert_eq!(failed.unwrap().rcode(), Rcode::SERVFAIL);
    let empty = Answer::parse(vec![0x12, 0x34, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    assert!(!empty.answers(&query, 0x1234));
    let failed = Answer::parse(empty.for_asker(&query, 0, 512, None)).unwrap();
    assert_eq!(failed.rcode(), Rcode::SERVFAIL);
}

#[test]
fn addresses_are_reached_by_other_names() {
    let addresses = |message: &Built| -> Vec<(String, u32)> {
        let answer = message.parsed();
        answer
            .addresses()
            .map(|(ip, ttl)| (ip.to_string(), ttl))
            .collect()
    };
    let wire = |text: &str| name(text).to_wire();
    let v6 = record(&wire("c.test"), RecordType::AAAA, 60, &[0; 16]);
    let message = wiki()
        .with(0, cname("B.test", "c.test", 300))
        .with(0, a(&wire("C.TEST"), 60, 1))
        .with(0, a(&wire("other.test"), 60, 2))
        .with(0, v6)
        .with(0, cname("wiki.corp.test", "b.test", 30))
        .with(2, a(&wire("c.test"), 60, 3));
    assert_eq!(
        addresses(&message),
        [("10.0.0.1".into(), 30), ("::".into(), 30)]
    );

    let chain = |len: usize| {
        let mut message = wiki().with(0, cname("wiki.corp.test", "n1", 9));
        for n in 1..len {
            message = message.with(0, cname(&format!("n{n}"), &format!("n{}", n + 1), 9));
        }
        message.with(0, a(&wire(&format!("n{len}")), 60, 1))
    };
    assert_eq!(addresses(&chain(16)), [("10.0.0.1".into(), 9)]);
    assert_eq!(addresses(&chain(17)), []);
    let round = wiki()
        .with(0, cname("wiki.corp.test", "wiki.corp.test", 9))
        .with(0, a(&QUESTION, 1, 1));
    assert_eq!(addresses(&round), []);
}

#[test]
fn answers_are_kept_for_as_long_as_they_say() {
    let query = asked(RecordType::A);
    let keep = |message: Built| message.parsed().keep_for(&query);
    let chain = wiki().with(0, cname("wiki.corp.test", "c.test", 40));

    assert_eq!(
        keep(
            wiki()
                .with(0, a(&QUESTION, 60, 1))
                .with(0, a(&QUESTION, 50, 2))
        ),
        Some(50)
    );
    assert_eq!(
        keep(chain.clone().with(0, a(&name("c.test").to_wire(), 60, 1))),
        Some(40)
    );
    assert_eq!(
        keep(wiki().with(0, a(&QUESTION, 0x8000_0001, 1))),
        Some(0),
        "RFC 2181 §8"
    );
    assert_eq!(
        keep(wiki().with(0, a(&QUESTION, 60, 1)).flags(0x8380)),
        None,
        "truncated"
    );
    assert_eq!(
        keep(wiki().with(0, a(&QUESTION, 60, 1)).flags(0x8182)),
        None,
        "SERVFAIL"
    );

    // Negative ones.
    for flags in [0x8180, 0x8183] {
        assert_eq!(keep(wiki().flags(flags)), None, "no SOA");
        assert_eq!(keep(wiki().with(1, soa(900, 300)).flags(flags)), Some(300));
        assert_eq!(keep(wiki().with(1, soa(200, 300)).flags(flags)), Some(200));
        assert_eq!(
            keep(chain.clone().with(1, soa(900, 300)).flags(flags)),
            Some(40)
        );
    }
    let other_type = wiki().with(0, record(&QUESTION, RecordType::TXT, 50, b"\x01x"));
    assert_eq!(keep(other_type.clone()), None);
    assert_eq!(
        other_type.parsed().keep_for(&asked(RecordType::ANY)),
        Some(50)
    );
    assert_eq!(chain.parsed().keep_for(&asked(CNAME)), Some(40));
}

#[test]
fn a_long_answer_becomes_header_and_question() {
    // client.md §15.6
    let message = wiki().with(0, record(&QUESTION, RecordType::TXT, 9, &[1; 3_000 - 44]));
    assert_eq!(message.bytes().len(), 3_000);
    let answer = message.parsed();
    let cut = answer.for_asker(&asked(RecordType::A), 0, 1_212, None);
    let mut expected = wiki().bytes();
    expected[2] |= 0x02;
    assert_eq!(cut, expected);
    assert_eq!(cut[4..12], [0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        answer.for_asker(&asked(RecordType::A), 0, 3_000, None),
        message.bytes()
    );

    let error = ExtendedError::new(ExtendedError::STALE_ANSWER, "old");
    let with_opt = answer.for_asker(&asked_with_edns(0), 0, 1_212, Some(&error));
    assert_eq!(with_opt[4..12], [0, 1, 0, 0, 0, 0, 0, 1]);
    assert_eq!(with_opt.len(), expected.len() + 11 + 6 + 3);
}

#[test]
fn an_asker_gets_its_own_question_back() {
    let mut bytes = Built::query("wiki.corp.test", RecordType::A)
        .flags(0x0010)
        .bytes();
    bytes[13..17].copy_from_slice(b"WIki");
    let asker = Query {
        id: 77,
        ..Query::parse(&bytes).unwrap()
    };
    let answer = wiki().with(0, a(&QUESTION, 60, 1)).flags(0x85A0).parsed(); // AA, RD, RA, AD
    let passed_on = answer.for_asker(&asker, 0, 512, None);

    assert_eq!(
        passed_on[..4],
        [0, 77, 0x80, 0x90],
        "RA and CD; no RD, AA, AD"
    );
    assert_eq!(passed_on[12..28], bytes[12..28]);
    let ad = |query: &Query| answer.for_asker(query, 0, 512, None)[3] & 0x20 != 0;
    assert!(ad(&Query {
        authentic_data: true,
        ..asker
    }));
    assert!(ad(&asked_with_edns(0x8000)) && !ad(&asked_with_edns(0)));
}

#[test]
fn times_to_live_run_down() {
    let message = wiki()
        .with(0, a(&QUESTION, 60, 1))
        .with(1, soa(5, 300))
        .with(2, opt(1_232, 0, &[0; 8]))
        .with(2, a(&QUESTION, 100, 2));
    let aged = message
        .parsed()
        .for_asker(&asked_with_edns(0), 10, 512, None);
    let expected = wiki()
        .with(0, a(&QUESTION, 50, 1))
        .with(1, soa(0, 300))
        .with(2, a(&QUESTION, 90, 2))
        .with(2, opt(1_232, 0, &[]));
    assert_eq!(
        aged,
        expected.bytes(),
        "and OPT, which has none, is replaced"
    );
}

#[test]
fn the_servers_opt_record_stays_with_us() {
    let ours = wiki().with(2, opt(1_232, 0, &[])).bytes();
    let with_options = wiki()
        .with(2, opt(4_096, 0x0000_8000, b"\0\x0A\0\x08cookies!"))
        .parsed();
    assert_eq!(
        with_options.for_asker(&asked_with_edns(0), 0, 512, None),
        ours
    );
    assert_eq!(
        with_options.for_asker(&asked(RecordType::A), 0, 512, None),
        wiki().bytes()
    );
    assert_eq!(
        wiki().parsed().for_asker(&asked_with_edns(0), 0, 512, None),
        ours
    );

    // What stands behind stays, unless it points to what moves.
    let tsig = record(&[1, b'k', 0], RecordType::TSIG, 0, &[9; 9]);
    let signed = wiki().with(2, opt(4_096, 0, &[])).with(2, tsig.clone());
    let passed_on = signed
        .parsed()
        .for_asker(&asked(RecordType::A), 5, 512, None);
    assert_eq!(passed_on, wiki().with(2, tsig).bytes());
    let tsig_at = (0xC000 | (wiki().bytes().len() as u16 + 11)).to_be_bytes();
    let pointing = signed.with(2, a(&tsig_at, 60, 1)).parsed();
    let passed_on = pointing.for_asker(&asked(RecordType::A), 5, 512, None);
    assert_eq!(passed_on, wiki().bytes());
}

#[test]
fn codes_keep_their_upper_bits() {
    let answer = wiki()
        .flags(0x8187)
        .with(2, opt(1_232, 0x0100_0000, &[]))
        .parsed();
    assert_eq!(answer.rcode(), Rcode::BADCOOKIE);
    let passed_on = answer.for_asker(&asked_with_edns(0), 0, 512, None);
    assert_eq!(Answer::parse(passed_on).unwrap().rcode(), Rcode::BADCOOKIE);
    let plain = answer.for_asker(&asked(RecordType::A), 0, 512, None);
    assert_eq!(Answer::parse(plain).unwrap().rcode(), Rcode::SERVFAIL);
    let bare = answer.without_additional();
    assert_eq!(bare.rcode(), Rcode::BADCOOKIE);
}

#[test]
fn a_reason_that_does_not_fit_is_dropped_before_the_answer() {
    let answer = wiki()
        .with(0, record(&QUESTION, RecordType::TXT, 9, &[1; 440]))
        .parsed();
    let error = ExtendedError::new(ExtendedError::STALE_ANSWER, "a reason of some length");
    let passed_on = answer.for_asker(&asked_with_edns(0), 0, 512, Some(&error));
    assert_eq!((passed_on[2] & 0x02, passed_on[7]), (0, 1));
    assert!(passed_on.ends_with(&opt(1_232, 0, &[])));
    let told = answer.for_asker(&asked_with_edns(0), 0, 1_212, Some(&error));
    assert!(told.ends_with(b"\0\x1d\0\x0f\0\x19\0\x03a reason of some length"));
}

#[test]
fn what_a_server_says_of_its_failure_is_understood() {
    let said = |options: &[u8]| wiki().with(2, opt(1_232, 0, options)).parsed().reason();
    assert_eq!(wiki().parsed().reason(), None);
    assert_eq!(said(b""), None);
    assert_eq!(said(b"\0\x0A\0\x08cookies!"), None);
    let expected = ExtendedError::new(ExtendedError::NO_REACHABLE_AUTHORITY, "nobody");
    assert_eq!(said(b"\0\x0F\0\x08\0\x16nobody"), Some(expected.clone()));
    assert_eq!(
        said(b"\0\x0A\0\x08cookies!\0\x0F\0\x09\0\x16nobody\0\0\x0F\0\x02\0\x01"),
        Some(expected),
        "the first one, without the zero at its end"
    );
    let bare = ExtendedError::new(ExtendedError::PROHIBITED, "");
    assert_eq!(said(b"\0\x0F\0\x02\0\x12"), Some(bare));
    for malformed in [
        &b"\0\x0F\0\x01\0"[..],
        b"\0\x0F\0\x09\0\x16nobody",
        b"\0\x0F\0",
        b"\0\x0A\xff\xff\0\x0F\0\x02\0\x12",
    ] {
        assert_eq!(said(malformed), None);
    }
    let odd = said(b"\0\x0F\0\x04\0\0\xff\xfe").unwrap();
    assert_eq!(odd.text, "\u{fffd}\u{fffd}");
}

#[test]
fn glue_is_left_out() {
    let message = wiki().with(0, a(&QUESTION, 60, 1)).with(1, soa(5, 5));
    let with_glue = message
        .clone()
        .with(2, opt(1_232, 0, &[]))
        .with(2, a(&QUESTION, 60, 9))
        .with(2, record(&[0], RecordType::TSIG, 0, &[]));
    let bare = with_glue.parsed().without_additional();
    assert_eq!(bare.bytes(), message.bytes());
    assert_eq!(
        bare.for_asker(&asked(RecordType::A), 0, 512, None),
        message.bytes()
    );
    assert_eq!(
        message.parsed().without_additional().bytes(),
        message.bytes()
    );
}
