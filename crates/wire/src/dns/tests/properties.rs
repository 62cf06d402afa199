use proptest::prelude::*;

use super::*;

fn labels() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let octet = prop_oneof![any::<u8>(), Just(b'.'), Just(b'\\'), Just(b'A')];
    prop::collection::vec(prop::collection::vec(octet, 1..10), 0..8)
}

pub(super) fn some_record() -> impl Strategy<Value = Vec<u8>> {
    let kinds = [1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 250].map(RecordType);
    let owner = prop_oneof![
        Just(QUESTION.to_vec()),
        Just(vec![0]),
        (12_u8..120).prop_map(|at| vec![0xC0, at]),
        Just(vec![1, b'a', 0xC0, 12]),
    ];
    let data = prop_oneof![
        Just(vec![10, 0, 0, 1]),
        Just(vec![0; 16]),
        Just(vec![0xC0, 12]),
        (12_u8..200).prop_map(|at| vec![0, 0, 0, 0, 0, 0, 1, b'b', 0xC0, at]),
        (12_u8..200).prop_map(|at| vec![1, b'b', 0xC0, at]),
        prop::collection::vec(any::<u8>(), 0..30),
    ];
    (
        owner,
        prop::sample::select(kinds.to_vec()),
        any::<u32>(),
        data,
    )
        .prop_map(|(owner, kind, ttl, data)| record(&owner, kind, ttl, &data))
}

/// Whatever is done with an answer leaves something that is an answer.
fn use_up(answer: Answer, age: u32, max: usize) {
    let error = ExtendedError::new(ExtendedError::OTHER, "why");
    for query in [asked(RecordType::A), asked_with_edns(0x8000)] {
        let _ = (answer.keep_for(&query), answer.addresses().count());
        let passed_on = answer.for_asker(&query, age, max, Some(&error));
        let again = Answer::parse(passed_on.clone()).unwrap();
        assert!(again.answers(&query, query.id));
        let least = 12 + query.question.len() + 11;
        assert!(passed_on.len() <= max.max(least));
        if !again.is_truncated() && !answer.points_past_opt() {
            assert_eq!(again.for_asker(&query, 0, max, Some(&error)), passed_on);
        }
    }
    let bare = answer.without_additional();
    let again = Answer::parse(bare.bytes().to_vec()).unwrap();
    assert_eq!(again.bytes(), bare.bytes());
}

impl Answer {
    fn points_past_opt(&self) -> bool {
        self.for_asker(&asked(RecordType::A), 0, 65_535, None).len() + 11 < self.bytes().len()
    }
}

proptest! {
    #[test]
    fn names_come_back_from_the_wire(labels in labels()) {
        let wire_len: usize = labels.iter().map(|label| label.len() + 1).sum();
        let made = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
        prop_assert_eq!(&Name::parse(made.as_str()).unwrap(), &made);
        prop_assert_eq!(made.labels().count(), labels.len());
        let wire = made.to_wire();
        prop_assert_eq!(wire.len(), wire_len + 1);
        let lower: Vec<Vec<u8>> = labels.iter().map(|label| label.to_ascii_lowercase()).collect();
        let read: Vec<Vec<u8>> = message::labels(&wire, 0).map(<[u8]>::to_vec).collect();
        prop_assert_eq!(read, lower);
    }

    #[test]
    fn any_text_is_a_name_or_not(text in "[a-cA-C.\\\\0-3é ]{0,20}") {
        if let Ok(made) = Name::parse(&text) {
            prop_assert_eq!(&Name::parse(made.as_str()).unwrap(), &made);
            let back = Name::from_labels(message::labels(&made.to_wire(), 0)).unwrap();
            prop_assert_eq!(back, made);
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, counts in prop::array::uniform4(0_u8..3), qr: bool) {
        let header = [0, 1, u8::from(qr) << 7, 0, 0, counts[0], 0, counts[1], 0, counts[2], 0, counts[3]];
        let message = [&header[..], &bytes].concat();
        for message in [bytes, message] {
            is_answer_to(&message, &message);
            if let Ok(query) = Query::parse(&message) {
                prop_assert_eq!(Query::parse(&query.to_upstream(query.id, false)).unwrap().name, query.name);
            }
            if let Ok(answer) = Answer::parse(message) {
                use_up(answer, 1, 600);
            }
        }
    }

    #[test]
    fn whatever_is_understood_can_be_passed_on(
        records in prop::collection::vec((0_usize..3, some_record()), 0..6),
        with_opt: bool,
        flags: u16, age: u32, max in 0_usize..600,
    ) {
        let mut message = Built::answer("wiki.corp.test", RecordType::A).flags(flags | 0x8000);
        message.flags &= 0x87FF;
        message.records = records;
        if with_opt {
            let at = message.records.len() / 2;
            message.records.insert(at, (2, opt(1_232, age, &[0, 1, 0, 1, 7])));
        }
        if let Ok(answer) = Answer::parse(message.bytes()) {
            use_up(answer, age, max);
        }
    }
}
