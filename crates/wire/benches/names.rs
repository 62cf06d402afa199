//! What a question for a resource costs: `cargo bench -p connlib-wire --bench names`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench has no one to reach, and stops at the first surprise"
)]

use std::hint::black_box;
use std::net::Ipv4Addr;

use connlib_wire::dns::{Answer, Data, Name, Query, Rcode, RecordType, respond};
use connlib_wire::pattern::{Pattern, PatternIndex};
use criterion::{Criterion, criterion_group, criterion_main};

const RESOURCES: usize = 10_000;

fn pattern(c: &mut Criterion) {
    let mut index = PatternIndex::new();
    for n in 0..RESOURCES {
        index.insert(&resource(n), n);
    }
    let names = [
        "host-17.zone-1.corp.test",        // an exact one, and a wildcard's
        "www.app-63.corp.test",            // `*.`
        "a.b.c.deep-94.corp.test",         // `**.`
        "svc-4-x99.corp.test",             // another wildcard
        "www.example.com",                 // none
        "unknown.corp.test",               // none, but all of its parents are known
        "a.b.c.d.e.f.zone-1.corp.example", // none
        "corp.test",
    ]
    .map(|text| Name::parse(text).unwrap());
    let found: usize = names.iter().map(|name| index.matches(name).len()).sum();
    assert!(found >= 4);

    let mut next = names.iter().cycle();
    c.bench_function("pattern/lookup-10000", |b| {
        b.iter(|| index.matches(black_box(next.next().unwrap())).len());
    });
}

/// 60 of 100 are exact, 30 `*.x`, 9 `**.x`, and one has another wildcard.
fn resource(n: usize) -> Pattern {
    let text = match n % 100 {
        0..60 => format!("host-{n}.zone-{}.corp.test", n % 16),
        60..90 => format!("*.app-{n}.corp.test"),
        90..99 => format!("**.deep-{n}.corp.test"),
        _ => format!("svc-?-*{n}.corp.test"),
    };

    Pattern::parse(&text).unwrap()
}

fn dns(c: &mut Criterion) {
    let name = Name::parse("gitlab.engineering.corp.test").unwrap();
    let asked = Query::new(&name, RecordType::A);
    let message = asked.to_upstream(7, true);
    let addresses = [1, 2, 3, 4].map(|n| Data::A(Ipv4Addr::new(100, 96, 0, n)));
    c.bench_function("dns/answer-resource", |b| {
        b.iter(|| {
            let query = Query::parse(black_box(&message)).unwrap();
            respond(&query, Rcode::NOERROR, 1, &addresses, None)
        });
    });

    let bytes = respond(&asked, Rcode::NOERROR, 300, &addresses, None);
    c.bench_function("dns/parse-answer", |b| {
        b.iter(|| Answer::parse(black_box(&bytes).clone()).unwrap());
    });
    let answer = Answer::parse(bytes).unwrap();
    c.bench_function("dns/pass-on", |b| {
        b.iter(|| answer.for_asker(black_box(&asked), 10, 1_212, None));
    });
}

criterion_group!(names, pattern, dns);
criterion_main!(names);
