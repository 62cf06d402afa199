//! Which names a pattern stands for, and which of several comes first (client.md §3), in a few lines that need not be fast.

use std::cmp::Ordering;

/// Whether `pattern` stands for `name`, which is in lower case.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let split = |text: &str| -> Vec<String> { text.split('.').map(str::to_owned).collect() };
    let is_itself = pattern.strip_prefix("*.") == Some(name);

    is_itself || labels_match(&split(&pattern), &split(name))
}

fn labels_match(pattern: &[String], name: &[String]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((first, rest)) if first == "**" => {
            (0..=name.len()).any(|taken| labels_match(rest, name.get(taken..).unwrap_or_default()))
        }
        Some((first, rest)) => name.split_first().is_some_and(|(label, others)| {
            label_matches(first.as_bytes(), label.as_bytes()) && labels_match(rest, others)
        }),
    }
}

fn label_matches(pattern: &[u8], label: &[u8]) -> bool {
    match pattern.split_first() {
        None => label.is_empty(),
        Some((b'*', rest)) => (0..=label.len())
            .any(|taken| label_matches(rest, label.get(taken..).unwrap_or_default())),
        Some((b'?', rest)) => label
            .split_first()
            .is_some_and(|(_, others)| label_matches(rest, others)),
        Some((byte, rest)) => label
            .split_first()
            .is_some_and(|(first, others)| first == byte && label_matches(rest, others)),
    }
}

/// Compares patterns, whatever their case: the more specific one is less.
pub(crate) fn compare(one: &str, other: &str) -> Ordering {
    let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    let (mut one, mut other) = (one.bytes().rev(), other.bytes().rev());
    loop {
        let (left, right) = (one.next(), other.next());
        let ordering = match (left, right) {
            (None, None) => return Ordering::Equal,
            (Some(left), Some(right)) if left == right => continue,
            (Some(_), None) => Ordering::Greater,
            (None, Some(_)) => Ordering::Less,
            (Some(b'*'), Some(_)) => Ordering::Greater,
            (Some(_), Some(b'*')) => Ordering::Less,
            (Some(b'?'), Some(_)) => Ordering::Greater,
            (Some(_), Some(b'?')) => Ordering::Less,
            (Some(left), Some(right)) => right.cmp(&left),
        };
        return ordering;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// client.md §15.1.
    #[test]
    fn patterns_match_as_the_specification_says() {
        for (pattern, name, is_match) in [
            ("**.corp.test", "corp.test", true),
            ("**.corp.test", "b.a.corp.test", true),
            ("*.corp.test", "corp.test", true),
            ("*.corp.test", "a.corp.test", true),
            ("*.corp.test", "b.a.corp.test", false),
            ("app.**.corp.test", "app.x.y.corp.test", true),
            ("app.**.corp.test", "app.corp.test", true),
            ("app.**.web.**.corp.test", "app.web.corp.test", true),
            ("x.*.corp.test", "x.y.corp.test", true),
            ("app.*.*.corp.test", "app.a.b.corp.test", true),
            ("app.*.corp.test", "app.a.b.corp.test", false),
            ("app.f??.corp.test", "app.foo.corp.test", true),
            ("app.f??.corp.test", "app.fo.corp.test", false),
            ("*?*.corp.test", "app.corp.test", true),
            ("app.*com", "app.x.com", false),
            ("app?com", "app.com", false),
            ("Wiki.Corp.test", "wiki.corp.test", true),
        ] {
            assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
        }
    }

    /// client.md §3.
    #[test]
    fn patterns_are_in_the_order_of_the_specification() {
        let sorted = [
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
        let mut shuffled: Vec<&str> = sorted.iter().rev().copied().collect();
        shuffled.sort_by(|one, other| compare(one, other));
        assert_eq!(shuffled, sorted);
    }
}
