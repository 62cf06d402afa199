use super::*;

#[test]
fn weekdays_are_read_and_written() {
    for (text, written) in [
        ("mon", "mon"),
        ("mon-fri", "mon-fri"),
        ("wed, mon", "mon,wed"),
        ("mon-sun", "mon-sun"),
        ("sat-sun", "sat,sun"),
        ("fri-mon", "mon,fri-sun"),
        ("mon-wed,sat", "mon-wed,sat"),
        ("mon - tue", "mon,tue"),
    ] {
        let days: Weekdays = text.parse().unwrap();
        assert_eq!(days.to_string(), written, "{text}");
        assert_eq!(days.to_string().parse(), Ok(days), "{text}");
    }
    for text in ["", "monday", "mon-", "-fri", "mon,,tue", "Mon", "1-5"] {
        assert!(text.parse::<Weekdays>().is_err(), "{text}");
    }
    assert_eq!(Weekdays::of(["mon", "wed-fri"]), "mon,wed-fri".parse());
    assert!(Weekdays::of([]).is_err());
}

#[test]
fn hours_are_read_and_written() {
    for text in ["08:00-18:00", "00:00-24:00", "23:59-24:00", "00:00-00:01"] {
        assert_eq!(text.parse::<Hours>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "8:00-18:00",
        "08:00",
        "08:00-18:60",
        "24:00-24:00",
        "08:00-24:01",
        "+8:00-18:00",
        "08:00-18:00-20:00",
    ] {
        let error = text.parse::<Hours>().unwrap_err();
        assert!(matches!(error, InvalidWindow::Hours(_)), "{text}: {error}");
    }
    for text in ["18:00-08:00", "08:00-08:00"] {
        let error = text.parse::<Hours>().unwrap_err();
        assert!(matches!(error, InvalidWindow::Backwards(_)), "{text}");
    }
}

#[test]
fn zones_are_known_by_name_alone() {
    assert_eq!(
        "europe/berlin".parse::<Zone>().unwrap().to_string(),
        "Europe/Berlin"
    );
    assert_eq!("UTC".parse(), Ok(Zone::default()));
    for text in ["", "Europe/Atlantis", "CET-1CEST", "Etc/Unknown", "+02:00"] {
        assert!(text.parse::<Zone>().is_err(), "{text}");
    }
}

#[test]
fn a_window_opens_and_closes_by_its_own_clock() {
    let office = window("mon-fri", "08:00-18:00", "Europe/Berlin");
    // In January Berlin is an hour ahead of UTC: 2026-01-02 is a Friday.
    for (at, end) in [
        ("2026-01-02T06:59:59Z", None),
        ("2026-01-02T07:00:00Z", Some("2026-01-02T17:00:00Z")),
        ("2026-01-02T16:59:59Z", Some("2026-01-02T17:00:00Z")),
        ("2026-01-02T17:00:00Z", None),
        ("2026-01-03T12:00:00Z", None),
        ("2026-07-03T06:00:00Z", Some("2026-07-03T16:00:00Z")),
    ] {
        check(&office, at, end);
    }
}

#[test]
fn ranges_that_touch_are_one() {
    let days = window("mon-tue", "00:00-24:00", "UTC");
    check(&days, "2026-01-05T10:00:00Z", Some("2026-01-07T00:00:00Z"));
    check(&days, "2026-01-07T00:00:00Z", None);

    // Sunday touches Monday across the end of the week.
    let weekend = window("sat-mon", "00:00-24:00", "UTC");
    check(
        &weekend,
        "2026-01-03T00:00:00Z",
        Some("2026-01-06T00:00:00Z"),
    );

    let mornings = window("mon-sun", "00:00-12:00", "UTC");
    check(
        &mornings,
        "2026-01-03T11:00:00Z",
        Some("2026-01-03T12:00:00Z"),
    );

    let all_but_wednesday = window("thu-tue", "00:00-24:00", "UTC");
    check(
        &all_but_wednesday,
        "2026-01-08T00:00:00Z",
        Some("2026-01-14T00:00:00Z"),
    );

    let always = window("mon-sun", "00:00-24:00", "Europe/Berlin");
    assert_eq!(always.until(unix("2026-01-03T11:00:00Z")), None);
    assert!(always.contains(0) && always.contains(u64::MAX));
}

#[test]
fn a_clock_that_is_set_moves_the_end() {
    // Berlin goes from 02:00 to 03:00 at 01:00 UTC on 2026-03-29, and back at 01:00 UTC on 2026-10-25; both are Sundays.
    let sundays = window("sun", "00:00-24:00", "Europe/Berlin");
    check(
        &sundays,
        "2026-03-28T23:00:00Z",
        Some("2026-03-29T22:00:00Z"),
    );
    check(
        &sundays,
        "2026-10-24T22:00:00Z",
        Some("2026-10-25T23:00:00Z"),
    );

    let skipped = window("sun", "02:10-02:50", "Europe/Berlin");
    for minutes in 0..180 {
        let at = unix("2026-03-29T00:00:00Z") + minutes * 60;
        assert!(!skipped.contains(at), "{minutes}");
    }
    // It ends where the clock jumps over the rest of it.
    let cut = window("sun", "01:00-02:30", "Europe/Berlin");
    check(&cut, "2026-03-29T00:30:00Z", Some("2026-03-29T01:00:00Z"));

    let twice = window("sun", "02:10-02:50", "Europe/Berlin");
    check(&twice, "2026-10-25T00:20:00Z", Some("2026-10-25T00:50:00Z"));
    check(&twice, "2026-10-25T00:55:00Z", None);
    check(&twice, "2026-10-25T01:20:00Z", Some("2026-10-25T01:50:00Z"));
    // 02:59:59 is followed by 02:00:00, which is in it as well.
    let long = window("sun", "01:00-03:00", "Europe/Berlin");
    check(&long, "2026-10-24T23:00:00Z", Some("2026-10-25T02:00:00Z"));
    let to_the_change = window("sun", "02:30-03:00", "Europe/Berlin");
    check(
        &to_the_change,
        "2026-10-25T00:40:00Z",
        Some("2026-10-25T01:00:00Z"),
    );
}

#[test]
fn a_day_that_is_left_out_joins_its_neighbours() {
    // Samoa had no Friday 2011-12-30.
    let not_fridays = window("sat-thu", "00:00-24:00", "Pacific/Apia");
    check(
        &not_fridays,
        "2011-12-29T20:00:00Z",
        Some("2012-01-05T10:00:00Z"),
    );
}

#[test]
fn reasons_name_the_window_and_the_clock() {
    let office = window("mon-fri", "08:00-18:00", "Europe/Berlin");
    assert_eq!(
        office.to_string(),
        "weekdays mon-fri 08:00-18:00 Europe/Berlin"
    );
    let clock = office.timezone.clock_at(unix("2026-01-04T02:12:30Z"));
    assert_eq!(clock.to_string(), "Sun 03:12");
}

proptest::proptest! {
    /// The end is the first second that is outside.
    #[test]
    fn a_window_holds_until_its_end(
        days in proptest::array::uniform7(proptest::bool::ANY),
        begin in 0..DAY,
        length in 1..=DAY,
        zone in proptest::sample::select(vec![
            "UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca",
        ]),
        at in 1_300_000_000_u64..2_000_000_000,
    ) {
        let window = Window {
            weekdays: Weekdays(days),
            hours: Hours { begin, end: (begin + length).min(DAY) },
            timezone: zone.parse().unwrap(),
        };
        match window.until(at) {
            None => proptest::prop_assert!(days == [true; 7] && window.hours == Hours::default()),
            Some(end) if window.contains(at) => {
                proptest::prop_assert!(end > at && !window.contains(end) && window.contains(end - 1));
                let mut inside = (at..end).step_by(60);
                proptest::prop_assert!(inside.all(|second| window.contains(second)));
            }
            Some(end) => proptest::prop_assert_eq!(end, at),
        }
    }

    #[test]
    fn no_text_makes_a_window_panic(text in "\\PC*", unix in proptest::num::u64::ANY) {
        let _ = (text.parse::<Weekdays>(), text.parse::<Hours>(), text.parse::<Zone>());
        let office = window("mon-fri", "08:00-18:00", "America/New_York");
        let _ = (office.contains(unix), office.until(unix));
    }
}

fn check(window: &Window, at: &str, end: Option<&str>) {
    let at = unix(at);
    assert_eq!(window.contains(at), end.is_some());
    if let Some(end) = end {
        assert_eq!(window.until(at), Some(unix(end)), "{at}");
    }
}

fn window(weekdays: &str, hours: &str, timezone: &str) -> Window {
    Window {
        weekdays: weekdays.parse().unwrap(),
        hours: hours.parse().unwrap(),
        timezone: timezone.parse().unwrap(),
    }
}

fn unix(text: &str) -> u64 {
    text.parse::<Timestamp>()
        .unwrap()
        .as_second()
        .try_into()
        .unwrap()
}
