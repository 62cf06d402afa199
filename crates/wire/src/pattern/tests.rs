use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn names_match_as_the_table_says() {
    // client.md §15.1
    for (text, names, expected) in [
        (
            "**.corp.test",
            &["corp.test", "a.corp.test", "b.a.corp.test"][..],
            true,
        ),
        ("*.corp.test", &["corp.test", "a.corp.test"], true),
        (
            "*.corp.test",
            &["b.a.corp.test", "test", "acorp.test"],
            false,
        ),
        (
            "app.**.corp.test",
            &["app.x.y.corp.test", "app.corp.test"],
            true,
        ),
        (
            "app.**.web.**.corp.test",
            &["app.web.corp.test", "app.web.web.corp.test"],
            true,
        ),
        (
            "app.**.web.**.corp.test",
            &["app.corp.test", "web.corp.test"],
            false,
        ),
        ("x.*.corp.test", &["x.y.corp.test"], true),
        ("x.*.corp.test", &["x.corp.test"], false),
        ("app.*.*.corp.test", &["app.a.b.corp.test"], true),
        ("app.*.corp.test", &["app.a.b.corp.test"], false),
        ("app.f??.corp.test", &["app.foo.corp.test"], true),
        ("app.f??.corp.test", &["app.fo.corp.test"], false),
        ("*?*.corp.test", &["app.corp.test", "a.corp.test"], true),
        ("*?*.corp.test", &["corp.test"], false),
        ("app.*com", &["app.x.com"], false),
        ("app.*com", &["app.com", "app.xcom"], true),
        ("app?com", &["app.com"], false),
        ("Wiki.Corp.test", &["wIKI.corp.TEST"], true),
        ("*.Corp.test", &["corp.test"], true),
        ("*ample.com", &["example.com", "ample.com"], true),
        ("f*", &["f", "foo"], true),
        ("f*", &["a.f", "xf"], false),
        ("corp.test.", &["corp.test"], true),
        ("corp.test", &["a.corp.test", "corp.testx"], false),
        ("*", &["a"], true),
        ("*", &["a.b", "."], false),
        ("**", &["a", "a.b.c", "."], true),
        ("a.**", &["a", "a.b"], true),
        ("*.*.test", &["a.b.test"], true),
        ("*.*.test", &["b.test", "test"], false),
        ("*.**.test", &["b.test", "a.b.test"], true),
        ("*.**.test", &["test"], false),
        (r"caf\195\169.test", &[r"caf\195\169.test"], true),
        (r"a\.b.*", &[r"a\.b.c"], true),
        (r"a.*.c", &[r"a\.b.c"], false),
    ] {
        let pattern = pattern(text);
        let index = indexed(std::slice::from_ref(&pattern));
        for one in names {
            assert_eq!(pattern.matches(&name(one)), expected, "{text} {one}");
            assert_eq!(
                index.matches(&name(one)).len() == 1,
                expected,
                "{text} {one}"
            );
        }
    }
}

#[test]
fn what_is_no_pattern_is_refused_with_advice() {
    let refused = |text: &str| Pattern::parse(text).unwrap_err();
    for text in ["**x.corp.test", "***", "a.x**.b", "a**b"] {
        assert!(
            matches!(refused(text), PatternError::DoubleStar(_)),
            "{text}"
        );
    }
    for text in ["a[b.test", "[abc].test", "a].test", "[!a]"] {
        assert!(
            matches!(refused(text), PatternError::CharacterClass(_)),
            "{text}"
        );
    }
    for text in [".a", "a..b", "a..", ".."] {
        assert!(
            matches!(refused(text), PatternError::EmptyLabel(_)),
            "{text}"
        );
    }
    assert_eq!(
        (refused(""), refused(".")),
        (PatternError::Empty, PatternError::Empty)
    );
    assert!(refused("*.bücher.test").to_string().contains("xn--"));
    assert!(refused("**x.test").to_string().contains("**.example.com"));
    assert!(matches!(refused("a b"), PatternError::NotPrintable(_)));
    assert!(matches!(refused(r"a\x"), PatternError::Escape(_)));
    assert!(matches!(refused("a\\"), PatternError::Escape(_)));
    assert_eq!(refused(&"a".repeat(1_017)), PatternError::TooLong(1_017));
}

#[test]
fn the_most_specific_comes_first() {
    // client.md §3
    let order = [
        "example.com",
        "bar.example.com",
        "*.bar.example.com",
        "foo.example.com",
        "?.example.com",
        "*.example.com",
        "**.example.com",
        "*ample.com",
        "*.com",
    ];
    let mut sorted: Vec<Pattern> = order.iter().rev().map(|text| pattern(text)).collect();
    sorted.sort();
    let sorted: Vec<&str> = sorted.iter().map(Pattern::as_str).collect();
    assert_eq!(sorted, order);
    assert!(pattern("?") < pattern("*") && pattern("a") < pattern("ba"));
    assert_eq!(pattern("A.Test."), pattern("a.test"));
}

#[test]
fn no_pattern_takes_exponential_time() {
    let long = name(&["a"; 127].join("."));
    let stars = pattern(&format!("{}b", "**.a.".repeat(60)));
    assert!(!stars.matches(&long));
    assert!(
        indexed(std::slice::from_ref(&stars))
            .matches(&long)
            .is_empty()
    );
    let label = "a".repeat(63);
    assert!(!pattern(&format!("{}b", "*a".repeat(31))).matches(&name(&label)));

    let only_deep = pattern(&["**"; 300].join("."));
    let index = indexed(&[only_deep]);
    assert_eq!(index.matches(&long).len(), 1);
}

#[test]
fn an_index_tells_the_most_specific_and_the_greatest_first() {
    let mut index = PatternIndex::new();
    for (text, value) in [("**.test", 1), ("*.corp.test", 2), ("a.corp.test", 3)] {
        index.insert(&pattern(text), value);
    }
    index.insert(&pattern("*.Corp.test"), 9);
    index.insert(&pattern("*.corp.test"), 5);
    index.insert(&pattern("*.corp.test"), 5);
    assert_eq!((index.len(), index.is_empty()), (5, false));

    let found = |index: &PatternIndex<u32>, text: &str| -> Vec<u32> {
        let name = name(text);
        index
            .matches(&name)
            .into_iter()
            .map(|(_, value)| *value)
            .collect()
    };
    assert_eq!(found(&index, "a.corp.test"), [3, 9, 5, 2, 1]);
    assert_eq!(found(&index, "corp.test"), [9, 5, 2, 1]);
    assert_eq!(found(&index, "b.a.corp.test"), [1]);
    assert_eq!(found(&index, "other"), [0_u32; 0]);

    assert!(index.remove(&pattern("*.corp.test"), &9));
    assert!(!index.remove(&pattern("*.corp.test"), &9));
    assert!(
        !index.remove(&pattern("corp.test"), &1),
        "a branch, but no pattern"
    );
    assert!(!index.remove(&pattern("x.y"), &1));
    assert_eq!(found(&index, "a.corp.test"), [3, 5, 2, 1]);
    index.clear();
    assert!(index.is_empty() && found(&index, "a.corp.test").is_empty());
}

fn indexed(patterns: &[Pattern]) -> PatternIndex<usize> {
    let mut index = PatternIndex::new();
    for (n, pattern) in patterns.iter().enumerate() {
        index.insert(pattern, n);
    }
    index
}

fn some_pattern() -> impl Strategy<Value = Pattern> {
    let label = prop_oneof![
        3 => "[ab]{1,2}",
        1 => Just("*".to_owned()),
        1 => Just("**".to_owned()),
        1 => "[ab*?]{1,3}",
    ];
    prop::collection::vec(label, 1..6).prop_filter_map("no pattern", |labels| {
        Pattern::parse(&labels.join(".")).ok()
    })
}

fn some_name() -> impl Strategy<Value = Name> {
    prop::collection::vec("[ab]{1,2}", 0..7).prop_map(|labels| name(&labels.join(".")))
}

/// Every way there is, one after the other.
fn tried(pattern: &[Label], labels: &[&str]) -> bool {
    match (pattern, labels) {
        ([], []) => true,
        ([Label::Deep, behind @ ..], _) => {
            (0..=labels.len()).any(|skipped| tried(behind, &labels[skipped..]))
        }
        ([first, behind @ ..], [label, rest @ ..]) => {
            let matches = match first {
                Label::Glob(glob) => tried_glob(glob.as_bytes(), label.as_bytes()),
                Label::Literal(_) | Label::Any | Label::Deep => first.matches(label),
            };
            matches && tried(behind, rest)
        }
        _ => false,
    }
}

fn tried_glob(glob: &[u8], label: &[u8]) -> bool {
    match (glob, label) {
        ([], []) => true,
        ([b'*', behind @ ..], _) => {
            (0..=label.len()).any(|skipped| tried_glob(behind, &label[skipped..]))
        }
        ([b'?', behind @ ..], [_, rest @ ..]) => tried_glob(behind, rest),
        ([first, behind @ ..], [byte, rest @ ..]) => first == byte && tried_glob(behind, rest),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn matching_equals_trying_everything(pattern in some_pattern(), name in some_name()) {
        let labels: Vec<&str> = name.labels().collect();
        let itself = pattern.as_str().strip_prefix("*.") == Some(name.as_str());
        prop_assert_eq!(pattern.matches(&name), tried(&pattern.labels, &labels) || itself);
    }

    #[test]
    fn an_index_equals_a_scan(
        patterns in prop::collection::vec(some_pattern(), 0..40),
        names in prop::collection::vec(some_name(), 1..10),
        removed in prop::collection::vec(0_usize..40, 0..20),
    ) {
        let mut index = indexed(&patterns);
        let mut kept: Vec<(Pattern, usize)> = patterns.into_iter().zip(0..).collect();
        for at in removed {
            if at < kept.len() {
                let (pattern, value) = kept.swap_remove(at);
                prop_assert!(index.remove(&pattern, &value));
                prop_assert!(!index.remove(&pattern, &value));
            }
        }
        prop_assert_eq!(index.len(), kept.len());
        for name in names {
            let mut expected: Vec<(&Pattern, &usize)> = kept
                .iter()
                .filter(|(pattern, _)| pattern.matches(&name))
                .map(|(pattern, value)| (pattern, value))
                .collect();
            expected.sort_by(|(p, v), (q, w)| p.cmp(q).then(w.cmp(v)));
            prop_assert_eq!(index.matches(&name), expected);
        }
        for (pattern, value) in &kept {
            prop_assert!(index.remove(pattern, value));
        }
        prop_assert!(index.is_empty() && index.is_pruned());
    }

    #[test]
    fn the_order_is_total(a in some_pattern(), b in some_pattern(), c in some_pattern()) {
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
    }

    #[test]
    fn any_text_is_a_pattern_or_not(text: String, likely in "[a.*?\\\\0-9\\[é]{0,12}", name in some_name()) {
        for text in [text, likely] {
            if let Ok(pattern) = Pattern::parse(&text) {
                prop_assert_eq!(&Pattern::parse(pattern.as_str()).unwrap(), &pattern);
                let found = !indexed(std::slice::from_ref(&pattern)).matches(&name).is_empty();
                prop_assert_eq!(found, pattern.matches(&name));
            }
        }
    }
}
