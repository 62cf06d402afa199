//! What an HTTP answer means that is not the wanted one (portal-protocol.md §1.6).

use std::time::Duration;

use serde::Deserialize;

/// A portal, or something in front of it, did not let us in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    /// The token is of no use; `detail` says more.
    Token { detail: Option<String> },
    /// Somebody wants to see other credentials, perhaps a proxy.
    Unauthorized { detail: Option<String> },
    /// It may be different next time.
    Retry {
        status: u16,
        detail: Option<String>,
        /// When it asks us to come back.
        after: Option<Duration>,
    },
}

/// What counts of an HTTP answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) content_type: Option<&'a str>,
    pub(super) retry_after: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// The longest explanation that is shown, in characters.
const MAX_DETAIL: usize = 200;

impl Answer<'_> {
    /// Whether the portal says that there is nothing at this path, so that it may be of the other generation: "not found", or
    /// "gone" (RFC 9110 §15.5.5, §15.5.11). Anything else may come from a portal that does serve it.
    pub(super) fn is_no_such_path(&self) -> bool {
        matches!(self.status, 404 | 410)
    }

    /// Whether the portal looks for a token elsewhere than where it was put. One of V1 says so in plain text, like all it
    /// has to say about tokens.
    pub(super) fn is_no_token(&self) -> bool {
        let code = Problem::of(self).code;

        self.status == 401 && code.is_none_or(|code| code == "missing_token")
    }
}

impl Refusal {
    /// `unix` is the wall clock, since 1970.
    pub(super) fn of(answer: &Answer<'_>, unix: Duration) -> Self {
        let problem = Problem::of(answer);
        let detail = problem.detail.map(presentable);
        if answer.status == 401 {
            // Only the portal itself may take a person's token away; a proxy's page must not.
            return match problem.code.as_deref() {
                Some("invalid_token" | "missing_token") => Self::Token { detail },
                _ => Self::Unauthorized { detail },
            };
        }

        Self::Retry {
            status: answer.status,
            detail,
            after: answer.retry_after.and_then(|text| delay(text, unix)),
        }
    }
}

/// What the portal says about an error (RFC 9457).
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    detail: Option<String>,
}

impl Problem {
    fn of(answer: &Answer<'_>) -> Self {
        let media_type = answer.content_type.and_then(|text| text.split(';').next());
        let is_problem = media_type.is_some_and(|media_type| {
            media_type
                .trim()
                .eq_ignore_ascii_case("application/problem+json")
        });
        if !is_problem {
            return Self::default();
        }

        serde_json::from_slice(answer.body).unwrap_or_default()
    }
}

/// What anybody in between may have written, as one line that fits a log.
fn presentable(text: String) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });

    line.take(MAX_DETAIL).collect()
}

/// Seconds, or a date (RFC 9110 §10.2.3); a date in the past is zero.
fn delay(text: &str, unix: Duration) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let since_1970 = date.duration_since(std::time::UNIX_EPOCH).ok()?;

    Some(since_1970.saturating_sub(unix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBLEM: Option<&str> = Some("Application/Problem+JSON; charset=utf-8");

    #[test]
    fn only_the_portal_itself_takes_a_token_away() {
        for code in ["invalid_token", "missing_token"] {
            let body = format!(r#"{{"type":"about:blank","code":"{code}","detail":"no"}}"#);
            let refusal = of(401, PROBLEM, &body);
            let detail = Some("no".into());
            assert_eq!(refusal, Refusal::Token { detail });
        }

        for (content_type, body) in [
            (PROBLEM, r#"{"code":"other"}"#),
            (PROBLEM, "{}"),
            (PROBLEM, "not json"),
            (Some("text/html"), r#"{"code":"invalid_token"}"#),
            (None, r#"{"code":"invalid_token"}"#),
        ] {
            let refusal = of(401, content_type, body);
            assert_eq!(refusal, Refusal::Unauthorized { detail: None }, "{body}");
        }
    }

    #[test]
    fn a_portal_of_the_other_generation_is_told_from_one_that_refuses() {
        for status in [
            400, 401, 402, 403, 405, 409, 422, 429, 500, 501, 503, 200, 302,
        ] {
            let answer = Answer {
                status,
                ..Answer::default()
            };
            assert!(!answer.is_no_such_path(), "{status}");
            assert_eq!(answer.is_no_token(), status == 401);
        }
        for status in [404, 410] {
            let answer = Answer {
                status,
                ..Answer::default()
            };
            assert!(answer.is_no_such_path() && !answer.is_no_token());
        }
        for (code, is_no_token) in [("missing_token", true), ("invalid_token", false)] {
            let body = format!(r#"{{"code":"{code}"}}"#);
            let answer = Answer {
                status: 401,
                content_type: PROBLEM,
                retry_after: None,
                body: body.as_bytes(),
            };
            assert_eq!(answer.is_no_token(), is_no_token, "{code}");
        }
    }

    #[test]
    fn an_explanation_is_one_line_of_a_log() {
        let long = "x".repeat(1_000);
        for (given, shown) in [
            ("a\\nb\\u001b[31m", "a b [31m"),
            (&*long, &long[..MAX_DETAIL]),
        ] {
            let body = format!(r#"{{"code":"invalid_token","detail":"{given}"}}"#);
            let detail = Some(shown.to_owned());
            assert_eq!(of(401, PROBLEM, &body), Refusal::Token { detail });
        }
    }

    #[test]
    fn everything_else_is_tried_again() {
        for status in [302, 400, 402, 403, 404, 408, 409, 422, 429, 500, 502, 503] {
            let refusal = of(status, PROBLEM, r#"{"code":"invalid_token","detail":"d"}"#);
            let expected = Refusal::Retry {
                status,
                detail: Some("d".into()),
                after: None,
            };
            assert_eq!(refusal, expected);
        }
    }

    #[test]
    fn the_portal_may_say_when_to_come_back() {
        let unix = Duration::from_secs(784_111_777 - 30);
        for (text, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sat, 06 Nov 1993 08:49:37 GMT", Some(0)),
            ("-1", None),
            ("12.5", None),
            ("", None),
            ("soon", None),
        ] {
            let answer = Answer {
                status: 503,
                retry_after: Some(text),
                ..Answer::default()
            };
            let Refusal::Retry { after, .. } = Refusal::of(&answer, unix) else {
                panic!("{text}");
            };
            assert_eq!(after, expected.map(Duration::from_secs), "{text}");
        }
    }

    fn of(status: u16, content_type: Option<&str>, body: &str) -> Refusal {
        let answer = Answer {
            status,
            content_type,
            retry_after: None,
            body: body.as_bytes(),
        };

        Refusal::of(&answer, Duration::ZERO)
    }
}
