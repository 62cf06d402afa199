//! DNS messages, and patterns of names.
//!
//! * A question means the same when it is asked again, and can be answered.
//! * An answer says the same to whoever it is passed on to, and is no longer than that one takes.
//! * A name means the same over the wire, and a pattern as text; a pattern matches the same in an index.

use connlib_wire::dns::{
    Answer, Data, ExtendedError, Name, Query, Rcode, RecordType, is_answer_to, respond,
};
use connlib_wire::pattern::{Pattern, PatternIndex};

/// A header, the longest question and an OPT record without options.
const LEAST_ANSWER: usize = 12 + 259 + 11;

/// A message; or a pattern and a name, each on its line.
pub fn dns(bytes: &[u8]) {
    is_answer_to(bytes, bytes);
    message(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let (first, second) = text.split_once('\n').unwrap_or((text, ""));
        names(first, second);
    }
}

/// The same bytes as a question and as an answer to it.
fn message(bytes: &[u8]) {
    let (mut asked, mut answered) = (bytes.to_vec(), bytes.to_vec());
    if bytes.len() > 2 {
        asked[2] &= 0x7F;
        answered[2] |= 0x80;
    }
    let (query, answer) = (Query::parse(&asked), Answer::parse(answered.clone()));
    let Ok(query) = query else {
        if let Ok(answer) = answer {
            assert_ne!(bytes[4..6], [0, 1], "it has another number of questions");
            let _ = (answer.addresses().count(), answer.without_additional());
        }
        return;
    };
    let answer = answer.expect("questions and answers have one form");
    assert!(is_answer_to(&asked, &answered) && answer.answers(&query, query.id));

    question(&query);
    let plain = Query::parse(&query.to_upstream(query.id, false)).expect("we wrote it");
    for asker in [&query, &plain] {
        for (age, max) in [
            (0, 65_535),
            (7, 65_535),
            (7, asker.max_udp_answer()),
            (0, 0),
        ] {
            passed_on(&answer, asker, age, max);
        }
    }
    let bare = answer.clone().without_additional();
    let again = Answer::parse(bare.bytes().to_vec()).expect("less of what was understood");
    // The OPT record's part of the code went with it.
    if again.rcode() == bare.rcode() {
        assert_eq!(again.keep_for(&query), bare.keep_for(&query));
    }
    assert!(again.addresses().eq(answer.addresses()));
}

fn question(query: &Query) {
    let again = Query::parse(&query.to_upstream(!query.id, true)).expect("we wrote it");
    assert_eq!(again.id, !query.id);
    assert_eq!(again.name, query.name);
    assert_eq!(
        (again.record_type, again.class, again.opcode),
        (query.record_type, query.class, query.opcode)
    );
    assert_eq!(
        (
            again.recursion_desired,
            again.authentic_data,
            again.checking_disabled
        ),
        (
            query.recursion_desired,
            query.authentic_data,
            query.checking_disabled
        )
    );
    let dnssec_ok = |query: &Query| query.edns.is_some_and(|edns| edns.dnssec_ok);
    assert_eq!(dnssec_ok(&again), dnssec_ok(query));

    let records = [Data::A([10, 0, 0, 1].into()), Data::Ptr(query.name.clone())];
    let error = ExtendedError::new(ExtendedError::OTHER, "why");
    let made = respond(query, Rcode::BADVERS, 9, &records, Some(&error));
    let made = Answer::parse(made).expect("we wrote it");
    assert!(made.answers(query, query.id));
    let said = query.edns.map_or(Rcode::SERVFAIL, |_| Rcode::BADVERS);
    assert_eq!(made.rcode(), said);
}

fn passed_on(answer: &Answer, asker: &Query, age: u32, max: usize) {
    let error = ExtendedError::new(ExtendedError::STALE_ANSWER, "old");
    let bytes = answer.for_asker(asker, age, max, Some(&error));
    assert!(bytes.len() <= max.max(LEAST_ANSWER));
    let again = Answer::parse(bytes).expect("we wrote it");
    assert!(again.answers(asker, asker.id));
    if again.is_truncated() {
        return;
    }

    assert!(!answer.is_truncated());
    let kept = answer.keep_for(asker);
    assert_eq!(again.keep_for(asker).is_some(), kept.is_some());
    if age == 0 {
        assert_eq!(again.keep_for(asker), kept);
        assert!(again.addresses().eq(answer.addresses()));
    } else {
        assert_eq!(again.addresses().count(), answer.addresses().count());
    }
}

fn names(first: &str, second: &str) {
    let name = Name::parse(second);
    if let Ok(name) = &name {
        assert_eq!(Name::parse(name.as_str()).as_ref(), Ok(name));
        let message = Query::new(name, RecordType::A).to_upstream(1, true);
        let query = Query::parse(&message).expect("we wrote it");
        assert_eq!(&query.name, name);
        assert_eq!(name.labels().count(), name.labels().rev().count());
        assert!(name.reverse().is_none() || name.as_str().ends_with(".arpa"));
    }

    let Ok(pattern) = Pattern::parse(first) else {
        return;
    };
    assert_eq!(Pattern::parse(pattern.as_str()).as_ref(), Ok(&pattern));
    let mut index = PatternIndex::new();
    index.insert(&pattern, 1);
    if let Ok(name) = &name {
        let found = index.matches(name);
        assert_eq!(
            found,
            vec![(&pattern, &1); usize::from(pattern.matches(name))]
        );
    }
    assert!(index.remove(&pattern, &1) && index.is_empty());
}
