//! What iperf3 says in JSON, as far as it is of use here.

use serde_json::Value;

/// What a run of iperf3 has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Carried {
    /// Bytes of payload that have arrived.
    pub(super) bytes: f64,
    /// Bits of payload per second that have arrived.
    pub(super) bps: f64,
    /// The share of datagrams that have not; `None` for TCP.
    pub(super) loss: Option<f64>,
    /// Bits per second that were sent.
    pub(super) sent_bps: f64,
    /// TCP segments that were sent again.
    pub(super) retransmits: Option<f64>,
}

/// Reads the object that `iperf3 --client --json` prints.
///
/// # Errors
///
/// A sentence: iperf3's own, or that this is not iperf3's.
pub(super) fn parse(text: &str) -> Result<Carried, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("it prints no JSON ({error})"))?;
    if let Some(error) = value.get("error").and_then(Value::as_str) {
        return Err(error.to_owned());
    }
    let end = |path: &str| {
        value
            .pointer(&format!("/end/{path}"))
            .and_then(Value::as_f64)
    };
    let missing = || "its report has no sums; is it iperf3 3.1 or newer?".to_owned();

    if let (Some(packets), Some(lost)) = (end("sum/packets"), end("sum/lost_packets")) {
        let share = lost / packets.max(1.0);
        // Older ones have only what was sent.
        let arrived = |name: &str| {
            let sent = end(&format!("sum/{name}"))?;
            Some(end(&format!("sum_received/{name}")).unwrap_or(sent * (1.0 - share)))
        };
        return Ok(Carried {
            bytes: arrived("bytes").ok_or_else(missing)?,
            bps: arrived("bits_per_second").ok_or_else(missing)?,
            loss: Some(share),
            sent_bps: end("sum/bits_per_second").ok_or_else(missing)?,
            retransmits: None,
        });
    }

    let sum = |name: &str| {
        let one = end(&format!("sum_received/{name}"))?;
        // The other direction of `--bidir`.
        Some(one + end(&format!("sum_received_bidir_reverse/{name}")).unwrap_or_default())
    };
    Ok(Carried {
        bytes: sum("bytes").ok_or_else(missing)?,
        bps: sum("bits_per_second").ok_or_else(missing)?,
        loss: None,
        sent_bps: end("sum_sent/bits_per_second").ok_or_else(missing)?,
        retransmits: end("sum_sent/retransmits"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_is_what_has_arrived() {
        let text = r#"{"start": {}, "intervals": [], "end": {"streams": [],
            "sum_sent": {"bytes": 1100, "bits_per_second": 8800.5, "retransmits": 3},
            "sum_received": {"bytes": 1000, "bits_per_second": 8000.25}}}"#;

        let carried = parse(text).unwrap();
        assert_eq!((carried.bytes, carried.bps), (1000.0, 8000.25));
        assert_eq!(carried.loss, None);
        assert_eq!(carried.retransmits, Some(3.0));
    }

    #[test]
    fn both_directions_count() {
        let text = r#"{"end": {"sum_sent": {"bits_per_second": 1},
            "sum_received": {"bytes": 10, "bits_per_second": 80},
            "sum_sent_bidir_reverse": {"bytes": 5, "bits_per_second": 40},
            "sum_received_bidir_reverse": {"bytes": 5, "bits_per_second": 40}}}"#;

        let carried = parse(text).unwrap();
        assert_eq!((carried.bytes, carried.bps), (15.0, 120.0));
    }

    #[test]
    fn lost_datagrams_have_not_arrived() {
        let text = r#"{"end": {"sum": {"bytes": 1200000, "bits_per_second": 9600000,
            "packets": 1000, "lost_packets": 250, "lost_percent": 25.0}}}"#;

        let carried = parse(text).unwrap();
        assert_eq!((carried.bytes, carried.bps), (900_000.0, 7_200_000.0));
        assert_eq!(carried.loss, Some(0.25));
        assert_eq!(carried.sent_bps, 9_600_000.0);

        let text = r#"{"end": {"sum": {"bytes": 1200000, "bits_per_second": 9600000,
            "packets": 1000, "lost_packets": 250}, "sum_received": {"bytes": 890000, "bits_per_second": 7100000}}}"#;
        assert_eq!(parse(text).unwrap().bytes, 890_000.0);
    }

    #[test]
    fn its_own_complaint_is_passed_on() {
        let complaint =
            r#"{"start": {}, "error": "unable to connect to server: Connection refused"}"#;

        assert!(parse(complaint).unwrap_err().contains("Connection refused"));
        for text in [
            "",
            "iperf3: hm",
            "[]",
            "{}",
            r#"{"end": {}}"#,
            r#"{"end": 1}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
