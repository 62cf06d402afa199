use proptest::prelude::*;
use serde_json::json;
use serde_json::value::to_raw_value;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_join_comes_first_byte_for_byte() {
    let mut rig = Rig::new();

    assert_eq!(
        rig.written(),
        [r#"{"topic":"client","event":"phx_join","payload":null,"ref":0}"#]
    );
}

#[test]
fn nothing_but_heartbeats_is_said_before_the_join_is_answered() {
    let mut rig = Rig::new();
    rig.written();

    assert!(!rig.channel.send("no_relays", &json!({})));
    rig.reply_ok(0);
    assert!(matches!(rig.channel.poll_event(), Some(Event::Joined)));
    assert!(rig.channel.send("no_relays", &json!({})));

    assert_eq!(
        rig.written(),
        [
            r#"{"topic":"client","event":"set_snownet_capabilities","payload":{"iceless":false},"ref":1}"#,
            r#"{"topic":"client","event":"no_relays","payload":{},"ref":2}"#,
        ]
    );
}

#[test]
fn a_heartbeat_does_not_wait_for_the_join() {
    let mut rig = Rig::new();
    rig.written();
    // The answer comes at the last moment of a second join.
    rig.reply_ok(0);
    rig.written();
    rig.pass(9 * SECOND);
    rig.refuse(5, "unmatched topic");
    rig.pass(SECOND);

    let written = rig.written();
    assert!(written[0].contains("heartbeat"), "{written:?}");
    assert!(written[1].contains("phx_join"));
    assert_eq!(written.len(), 2);
}

#[test]
fn an_unanswered_join_ends_the_connection_after_five_seconds() {
    let mut rig = Rig::new();
    assert_eq!(rig.channel.poll_timeout(), rig.now + JOIN_TIMEOUT);

    rig.now += JOIN_TIMEOUT - Duration::from_millis(1);
    assert_eq!(rig.channel.handle_timeout(rig.now), Ok(()));
    rig.now += Duration::from_millis(1);
    assert_eq!(rig.channel.handle_timeout(rig.now), Err(End::JoinTimedOut));
}

#[test]
fn a_refused_join_ends_the_connection_for_good() {
    for reason in ["disabled", "unmatched topic", "no idea"] {
        let mut rig = Rig::new();
        let reply = phoenix::reply_error("client", Some(0), reason);

        let end = rig.channel.handle_text(rig.now, &reply).unwrap_err();

        assert_eq!(
            end.to_string(),
            format!("the portal refused the join: {reason}")
        );
    }
}

#[test]
fn a_lost_room_is_joined_again_once() {
    let mut rig = Rig::joined();
    rig.channel.send("no_relays", &json!({}));
    rig.refuse(1, "unmatched topic");
    rig.refuse(1, "unmatched topic");
    assert!(matches!(rig.channel.poll_event(), Some(Event::Left)));
    assert!(!rig.channel.send("no_relays", &json!({})));

    let written = rig.written();
    assert_eq!(written.len(), 1, "{written:?}");
    assert!(written[0].contains("phx_join"));

    rig.reply_ok(2);
    assert!(matches!(rig.channel.poll_event(), Some(Event::Joined)));
    let written = rig.written();
    assert_eq!(written.len(), 1, "{written:?}");
    assert!(written[0].contains("set_snownet_capabilities"));
}

#[test]
fn other_refusals_and_other_topics_change_nothing() {
    let mut rig = Rig::joined();

    rig.refuse(1, "unknown_message");
    let other = phoenix::reply_error("gateway", Some(1), "unmatched topic");
    assert_eq!(rig.channel.handle_text(rig.now, &other), Ok(()));
    let close = r#"{"topic":"phoenix","event":"phx_close","payload":{},"ref":null}"#;
    assert_eq!(rig.channel.handle_text(rig.now, close), Ok(()));

    assert!(rig.written().is_empty());
    assert!(rig.channel.poll_event().is_none());
}

#[test]
fn heartbeats_come_every_ten_seconds_whatever_else_is_said() {
    let mut rig = Rig::joined();
    let mut heartbeats = Vec::new();
    for second in 1..=25 {
        rig.pass(SECOND);
        rig.channel.send("traffic", &json!({ "second": second }));
        for text in rig.written() {
            if text.contains("heartbeat") {
                heartbeats.push(second);
            }
        }
    }

    assert_eq!(heartbeats, [10, 20]);
}

#[test]
fn a_check_is_a_heartbeat_at_once_that_is_answered_soon() {
    let mut rig = Rig::joined();
    rig.written();
    rig.channel.check(rig.now);
    let written = rig.written();
    assert!(written[0].contains("heartbeat"), "{written:?}");
    assert_eq!(rig.channel.poll_timeout(), rig.now + CHECK_TIMEOUT);
    // Another doubt doesn't give it more time.
    rig.now += SECOND;
    rig.channel.check(rig.now);
    assert!(rig.written().is_empty());

    let reference = rig.channel.check.unwrap().reference;
    for (answered, is_over) in [(reference + 1, false), (reference, true)] {
        let reply = phoenix::reply_ok(HEARTBEAT_TOPIC, Some(answered));
        assert_eq!(rig.channel.handle_text(rig.now, &reply), Ok(()));
        assert_eq!(rig.channel.check.is_none(), is_over);
    }
    rig.now += 2 * SECOND;
    assert_eq!(rig.channel.handle_timeout(rig.now), Ok(()));
    assert_eq!(
        rig.channel.poll_timeout(),
        rig.now + HEARTBEAT_INTERVAL - 3 * SECOND
    );

    rig.channel.check(rig.now);
    rig.now += CHECK_TIMEOUT;
    assert_eq!(
        rig.channel.handle_timeout(rig.now),
        Err(End::CheckUnanswered)
    );
}

#[test]
fn more_than_three_unanswered_heartbeats_are_too_many() {
    let mut rig = Rig::joined();
    for _ in 0..3 {
        rig.pass(HEARTBEAT_INTERVAL);
        assert_eq!(rig.written().len(), 1);
        let bogus = phoenix::reply_ok(HEARTBEAT_TOPIC, Some(999));
        assert_eq!(rig.channel.handle_text(rig.now, &bogus), Ok(()));
    }

    rig.pass(HEARTBEAT_INTERVAL);
    let text = rig.channel.poll_text().unwrap();
    assert_eq!(
        rig.channel.handle_written(&text),
        Err(End::HeartbeatsUnanswered)
    );
}

#[test]
fn answered_heartbeats_are_forgotten() {
    let mut rig = Rig::joined();
    for _ in 0..20 {
        rig.pass(HEARTBEAT_INTERVAL);
        let text = rig.channel.poll_text().unwrap();
        assert_eq!(rig.channel.handle_written(&text), Ok(()));
        let reply = phoenix::reply_ok(HEARTBEAT_TOPIC, text.heartbeat);
        assert_eq!(rig.channel.handle_text(rig.now, &reply), Ok(()));
    }
}

#[test]
fn heartbeats_that_a_blocked_socket_did_not_take_do_not_count() {
    let mut rig = Rig::joined();
    for _ in 0..20 {
        rig.pass(HEARTBEAT_INTERVAL);
    }

    assert_eq!(rig.written().len(), 1);
}

#[test]
fn a_message_that_waits_already_is_not_queued_again() {
    let mut rig = Rig::joined();
    for _ in 0..4 {
        assert!(
            rig.channel
                .send("request_authorization", &json!({"resource_id": 1}))
        );
    }
    assert!(
        rig.channel
            .send("request_authorization", &json!({"resource_id": 2}))
    );
    assert_eq!(rig.written().len(), 2);

    rig.channel
        .send("request_authorization", &json!({"resource_id": 1}));
    assert_eq!(rig.written().len(), 1, "the first one was said already");
}

#[test]
fn messages_are_handed_on_and_garbage_costs_itself_alone() {
    let mut rig = Rig::joined();
    for text in [
        "42",
        r#"{"event":"init"}"#,
        r#"{"topic":"client","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":null}"#,
        r#"{"topic":"client","event":"disconnect","payload":{"reason":"certificate_revoked"},"ref":null}"#,
        r#"{"topic":"client","event":"phx_error","payload":{},"ref":null}"#,
        r#"{"topic":"client","event":"init","payload":{"a":1},"ref":null,"more":true}"#,
    ] {
        assert_eq!(rig.channel.handle_text(rig.now, text), Ok(()), "{text}");
    }

    let Some(Event::Message { event, payload }) = rig.channel.poll_event() else {
        panic!("no message");
    };
    assert_eq!((event.as_str(), payload.get()), ("init", r#"{"a":1}"#));
    assert!(rig.channel.poll_event().is_none());
}

#[test]
fn ends_have_their_reasons() {
    for (text, end) in [
        (
            r#"{"topic":"client","event":"phx_close","payload":{},"ref":0}"#,
            End::Closed,
        ),
        (
            r#"{"topic":"client","event":"disconnect","payload":{"reason":"token_expired"}}"#,
            End::TokenExpired,
        ),
        (r#"{"topic":"client","#, End::Broken),
    ] {
        let mut rig = Rig::joined();
        assert_eq!(rig.channel.handle_text(rig.now, text), Err(end));
    }
}

struct Rig {
    channel: Channel,
    now: Instant,
}

impl Rig {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has to begin at some time"
    )]
    fn new() -> Self {
        let now = Instant::now();
        let nothing = to_raw_value(&()).unwrap();
        let greeting = to_raw_value(&json!({"iceless": false})).unwrap();
        let greeting = Some(("set_snownet_capabilities", greeting));

        Self {
            channel: Channel::new(now, "client", nothing, greeting),
            now,
        }
    }

    fn joined() -> Self {
        let mut rig = Self::new();
        rig.reply_ok(0);
        rig.written();
        while rig.channel.poll_event().is_some() {}

        rig
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.channel.handle_timeout(self.now).unwrap();
    }

    fn written(&mut self) -> Vec<String> {
        let mut written = Vec::new();
        while let Some(text) = self.channel.poll_text() {
            // Each is answered, so that none is missed.
            self.channel.handle_written(&text).unwrap();
            written.push(text.text);
        }

        written
    }

    fn reply_ok(&mut self, reference: u64) {
        let reply = phoenix::reply_ok("client", Some(reference));
        self.channel.handle_text(self.now, &reply).unwrap();
    }

    fn refuse(&mut self, reference: u64, reason: &str) {
        let reply = phoenix::reply_error("client", Some(reference), reason);
        self.channel.handle_text(self.now, &reply).unwrap();
    }
}

/// Something that happens to a channel.
#[derive(Clone, Debug)]
enum Step {
    Say(u8),
    Pass(u64),
    /// The portal answers what was written so many texts ago: `None` is ok.
    Answer(u64, Option<&'static str>),
    /// It says this, or what is left of it.
    Text(String, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let reason = prop_oneof![
        3 => Just(None),
        1 => Just(Some("unmatched topic")),
        1 => Just(Some("unknown_message")),
    ];
    let message = r#"{"topic":"client","event":"init","payload":{"a":[1]},"ref":null}"#;
    let close = r#"{"topic":"client","event":"phx_close","payload":{},"ref":0}"#;
    let text = prop_oneof![
        Just(message.to_owned()),
        Just(close.to_owned()),
        ".{0,80}",
        // Members of the right names and of any type.
        (0..4_usize, "[0-9a-z\"{}\\[\\]:,]{0,20}").prop_map(|(at, wrong)| {
            let mut members = [r#""client""#, r#""phx_reply""#, "{}", "0"];
            members[at] = &wrong;
            let [topic, event, payload, reference] = members;
            format!(r#"{{"topic":{topic},"event":{event},"payload":{payload},"ref":{reference}}}"#)
        }),
    ];
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Say),
        2 => (1..6_000_u64).prop_map(Step::Pass),
        4 => (0..4_u64, reason).prop_map(|(back, reason)| Step::Answer(back, reason)),
        2 => (text, 0..200_usize).prop_map(|(text, length)| Step::Text(text, length)),
    ]
}

/// What one connection has written.
struct Spoken {
    rig: Rig,
    references: Vec<u64>,
    /// The join that has no answer yet.
    join: Option<u64>,
}

impl Spoken {
    fn new() -> Self {
        Self {
            rig: Rig::new(),
            references: Vec::new(),
            join: None,
        }
    }

    fn take(&mut self, step: Step) -> Result<(), End> {
        let Rig { channel, now } = &mut self.rig;
        match step {
            Step::Say(number) => {
                let is_joined = channel.state == State::Joined;
                assert_eq!(channel.send("traffic", &number), is_joined);
                Ok(())
            }
            Step::Pass(millis) => {
                *now += Duration::from_millis(millis);
                channel.handle_timeout(*now)
            }
            Step::Answer(back, reason) => {
                let last = self.references.last();
                let Some(reference) = last.and_then(|last| last.checked_sub(back)) else {
                    return Ok(());
                };
                let is_join = self.join == Some(reference);
                let reply = match reason {
                    Some(reason) => phoenix::reply_error("client", Some(reference), reason),
                    None if is_join => {
                        self.join = None;
                        phoenix::reply_ok("client", Some(reference))
                    }
                    None => phoenix::reply_ok(HEARTBEAT_TOPIC, Some(reference)),
                };
                channel.handle_text(*now, &reply)
            }
            Step::Text(text, length) => {
                let text: String = text.chars().take(length).collect();
                channel.handle_text(*now, &text)
            }
        }
    }

    fn write(&mut self) -> Result<(), End> {
        while let Some(text) = self.rig.channel.poll_text() {
            let envelope = Envelope::parse(&text.text).unwrap();
            let reference = envelope.reference.unwrap().number().unwrap();
            match self.references.last() {
                Some(last) => assert!(*last < reference, "{:?}", self.references),
                None => assert_eq!((&*envelope.event, reference), (phoenix::JOIN, 0)),
            }
            self.references.push(reference);
            match envelope.event.as_str() {
                phoenix::HEARTBEAT => {}
                phoenix::JOIN => self.join = Some(reference),
                event => assert_eq!(self.join, None, "{event} before the answer"),
            }
            self.rig.channel.handle_written(&text)?;
        }

        Ok(())
    }
}

proptest! {
    /// portal-protocol.md §14.5: whatever is said or not, references grow on each connection, and nothing but heartbeats comes
    /// between a join and its answer.
    #[test]
    fn whatever_happens(steps in proptest::collection::vec(step(), 1..80)) {
        let mut spoken = Spoken::new();
        for step in steps {
            spoken.write().unwrap();
            let result = spoken.take(step).and_then(|()| spoken.write());
            if result.is_err() {
                spoken = Spoken::new();
            }
        }
    }
}
