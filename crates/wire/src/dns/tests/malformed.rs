//! Answers that contradict themselves.

use super::*;

fn refused(message: &Built) -> AnswerError {
    Answer::parse(message.bytes()).unwrap_err()
}

#[test]
fn malformed_records_are_refused() {
    let data =
        |kind: RecordType, data: &[u8]| refused(&wiki().with(0, record(&QUESTION, kind, 1, data)));
    let wrong = |kind| AnswerError::from(Malformed::RecordData { kind });

    assert_eq!(data(RecordType::A, &[1, 2, 3]), wrong(RecordType::A));
    assert_eq!(data(RecordType::AAAA, &[0; 17]), wrong(RecordType::AAAA));
    for kind in [
        CNAME,
        RecordType::NS,
        RecordType::PTR,
        RecordType::MX,
        RecordType::SOA,
        RecordType::SRV,
    ] {
        assert_eq!(data(kind, &[]), wrong(kind));
        let past_the_end = data(kind, &[9, 9, 9, 9, 9, 9, 9]);
        assert!(matches!(past_the_end, AnswerError::Malformed(_)), "{kind}");
    }
    assert_eq!(
        data(CNAME, &[1, b'a', 0, 0]),
        wrong(CNAME),
        "a byte too many"
    );
    assert_eq!(
        data(CNAME, &[0x40; 9]),
        Malformed::LabelKind { at: 44 }.into()
    );
    // Its data is at byte 44: a loop, forward, into the header.
    for target in [44, 45, 60, 4] {
        assert_eq!(
            data(CNAME, &[0xC0, target]),
            Malformed::Pointer { at: 44 }.into()
        );
    }
    assert_eq!(
        data(CNAME, &[1, b'a', 0xC0, 44]),
        Malformed::Pointer { at: 46 }.into()
    );
    let mail = [&[0, 10][..], &QUESTION].concat();
    assert!(
        Answer::parse(
            wiki()
                .with(0, record(&QUESTION, RecordType::MX, 1, &mail))
                .bytes()
        )
        .is_ok()
    );
}

#[test]
fn counts_and_lengths_must_fit_the_bytes() {
    let good = wiki()
        .with(0, a(&QUESTION, 1, 1))
        .with(1, soa(5, 5))
        .bytes();
    assert!(Answer::parse(good.clone()).is_ok());
    for len in 12..good.len() {
        let cut = Answer::parse(good[..len].to_vec());
        assert!(matches!(cut, Err(AnswerError::Malformed(_))), "{len}");
    }
    for len in 0..12 {
        let short = Answer::parse(good[..len].to_vec()).unwrap_err();
        assert_eq!(short, AnswerError::Short(len));
    }
    for at in [4, 5, 6, 7, 8, 9, 10, 11] {
        let mut more = good.clone();
        more[at] += 1;
        assert!(Answer::parse(more).is_err(), "more records than bytes");
    }
    let trailing = Answer::parse([&good[..], &[0]].concat()).unwrap_err();
    assert_eq!(trailing, Malformed::Trailing.into());
    let question = Answer::parse(Built::query("a", RecordType::A).bytes()).unwrap_err();
    assert_eq!(question, AnswerError::NotAnAnswer);
}

#[test]
fn pointers_that_never_end_are_refused() {
    // A name of 200 pointers, each to the one before: allowed by direction, refused by number.
    let mut data = vec![0];
    let start = 44_u16;
    for n in 0..200 {
        let before = if n == 0 {
            start
        } else {
            start + 1 + (n - 1) * 2
        };
        data.extend((0xC000 | before).to_be_bytes());
    }
    let last = (0xC000_u16 | (start + 1 + 199 * 2)).to_be_bytes();
    let message = wiki()
        .with(0, record(&QUESTION, RecordType::TXT, 1, &data))
        .with(0, a(&last, 1, 1));
    assert!(matches!(
        refused(&message),
        AnswerError::Malformed(Malformed::Pointer { .. })
    ));
}

#[test]
fn names_may_not_run_on_into_what_follows_them() {
    // Byte 29 is in the question's type; read as a label there, the name runs on through the OPT record.
    let signed = wiki()
        .with(2, opt(1_232, 0, &[]))
        .with(2, record(&[0xC0, 29], RecordType::TSIG, 0, &[10, 0, 0, 1]));
    match Answer::parse(signed.bytes()) {
        Err(error) => assert!(matches!(error, AnswerError::Malformed(_))),
        Ok(answer) => {
            let passed_on = answer.for_asker(&asked(RecordType::A), 1, 512, None);
            assert_eq!(passed_on, wiki().bytes());
        }
    }

    // An own name that begins in front of the record, but ends inside of it.
    let txt = record(&QUESTION, RecordType::TXT, 1, &[3, 1, 2]);
    let into_itself = wiki().with(0, txt).with(0, a(&[0xC0, 44], 1, 1));
    let error = refused(&into_itself);
    assert_eq!(error, Malformed::Pointer { at: 44 }.into());
}

#[test]
fn names_that_depend_on_times_to_live_are_not_passed_on() {
    // The second name is read from the first record's time to live: a label of one octet, and the root.
    let odd = wiki()
        .with(0, a(&QUESTION, 0x0001_6100, 1))
        .with(0, a(&[0xC0, 39], 60, 2));
    let answer = odd.parsed();
    let fresh = answer.for_asker(&asked(RecordType::A), 0, 512, None);
    assert_eq!(fresh, odd.bytes());
    let aged = answer.for_asker(&asked(RecordType::A), 0x6100 + 0x1_0000, 512, None);
    assert!(Answer::parse(aged).is_ok());
    let failed = answer.for_asker(&asked(RecordType::A), 1, 512, None);
    assert_eq!(Answer::parse(failed).unwrap().rcode(), Rcode::SERVFAIL);
}
