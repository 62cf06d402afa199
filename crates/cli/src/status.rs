//! `connlib status`: what a running role is doing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use connlib::status::{self, StatusError};
use serde::Deserialize;
use serde_json::Value;

use crate::args::StatusArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure, print};

/// The roles that can be asked.
const ROLES: [&str; 3] = ["client", "gateway", "relay"];

/// More rows don't fit the 24 lines that are promised.
const MAX_ROWS: usize = 6;

/// How long relays may be silent before that is worth a line, in milliseconds: they are asked three times until then.
const SILENT_MS: u64 = 3_000;

/// Asks the only role that runs here, or the one that is named, and prints its answer.
///
/// # Errors
///
/// Exit 1: nothing runs there, or doesn't answer. Exit 2: several run, and none was named.
pub(crate) fn run(args: &StatusArgs, environment: &Environment) -> Result<(), Failure> {
    let socket = socket_of(args.socket.as_ref(), environment)?;
    let answer = status::query(&socket)?;
    if args.json {
        return print(format_args!("{answer:#}\n"));
    }

    let status: Shown = serde_json::from_value(answer).map_err(|error| odd(&socket, &error))?;
    print(table(&status))
}

/// Where to ask: the socket that is named, else the only one that somebody listens at.
///
/// # Errors
///
/// Exit 1: nobody does. Exit 2: several do.
pub(crate) fn socket_of(
    named: Option<&PathBuf>,
    environment: &Environment,
) -> Result<PathBuf, Failure> {
    match named {
        Some(socket) => Ok(socket.clone()),
        None => match environment.value("CONNLIB_SOCKET") {
            Some(socket) => Ok(socket.into()),
            None => only_one(),
        },
    }
}

/// How the first link of the role behind `socket` travels: `direct` or `relayed`; `None` while it comes up.
///
/// # Errors
///
/// It doesn't answer.
pub(crate) fn first_path(socket: &Path) -> Result<Option<String>, Failure> {
    let answer = status::query(socket)?;
    let path = answer.pointer("/peers/0/path").and_then(Value::as_str);

    Ok(path.map(str::to_owned))
}

/// How the data plane of the role behind `socket` has kept up since it began.
///
/// # Errors
///
/// Exit 1: it doesn't answer, or has none.
pub(crate) fn load(socket: &Path) -> Result<Load, Failure> {
    let answer = status::query(socket)?;

    load_in(&answer).map_err(|error| odd(socket, &error))
}

/// What the data plane measures of itself, in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
pub(crate) struct Load {
    /// How long its turns took.
    #[serde(rename = "turn_ms")]
    pub(crate) turns: Quantiles,
    /// How late its timers were served.
    #[serde(rename = "timer_delay_ms")]
    pub(crate) timer_delays: Quantiles,
}

/// What so many didn't exceed. Each is rounded up, by less than a quarter.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Load {
    /// The longer times of two.
    pub(crate) fn worse(self, other: Self) -> Self {
        Self {
            turns: self.turns.worse(other.turns),
            timer_delays: self.timer_delays.worse(other.timer_delays),
        }
    }
}

impl Quantiles {
    fn worse(self, other: Self) -> Self {
        Self {
            p50: self.p50.max(other.p50),
            p99: self.p99.max(other.p99),
            p999: self.p999.max(other.p999),
            max: self.max.max(other.max),
        }
    }
}

fn load_in(answer: &Value) -> serde_json::Result<Load> {
    Load::deserialize(answer.get("load").unwrap_or(&Value::Null))
}

pub(crate) fn odd(socket: &Path, error: &serde_json::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        format_args!(
            "{} gave an odd answer ({error}); is it of the same version?",
            socket.display()
        ),
    )
}

/// The answer, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shown {
    role: String,
    portal: String,
    portal_generation: Option<String>,
    portal_away_ms: Option<u64>,
    portal_retry_ms: Option<u64>,
    portal_error: Option<String>,
    last_refusal: Option<Refusal>,
    interface: Option<String>,
    addresses: Vec<String>,
    name_servers: Vec<NameServer>,
    peers: Vec<Peer>,
    relays: Vec<Relay>,
    relays_silent_ms: Option<u64>,
    resources: Vec<Resource>,
    /// A relay doesn't count these.
    rejected_datagrams: Option<u64>,
    dropped_from_tun: u64,
    dropped_from_peers: u64,
    drops_from_tun: BTreeMap<String, u64>,
    drops_from_peers: BTreeMap<String, u64>,
}

/// An access that the portal did not grant.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    resource: String,
    reason: String,
    violated_properties: Vec<String>,
    age_ms: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NameServer {
    address: String,
    upstream: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Peer {
    id: String,
    path: Option<String>,
    via: Option<String>,
    why: Option<String>,
    path_age_ms: Option<u64>,
    local: Option<String>,
    remote: Option<String>,
    rtt_ms: Option<f64>,
    handshake_age_ms: Option<u64>,
    sent_bytes: u64,
    received_bytes: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Relay {
    id: String,
    server: Option<String>,
    rtt_ms: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resource {
    id: String,
    name: String,
    address: Option<String>,
    reach: Option<String>,
    gateway: Option<String>,
    clients: Vec<String>,
}

fn only_one() -> Result<PathBuf, Failure> {
    let sockets = ROLES.into_iter().filter_map(status::default_path);
    // What a killed process has left behind doesn't count.
    let found: Vec<_> = sockets
        .filter(|path| std::os::unix::net::UnixStream::connect(path).is_ok())
        .collect();

    match found.as_slice() {
        [socket] => Ok(socket.clone()),
        [] => Err(Failure::new(
            Exit::Failed,
            "no client, gateway or relay runs here that this user may ask; start one, or name its socket with --socket",
        )),
        several => {
            let names: Vec<_> = several
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            Err(Failure::new(
                Exit::WrongUse,
                format_args!(
                    "several run here; name one with --socket: {}",
                    names.join(", ")
                ),
            ))
        }
    }
}

fn table(status: &Shown) -> String {
    let mut text = format!("{}, portal {}", status.role, or_dash(&status.portal));
    if let Some(generation) = &status.portal_generation {
        // Writing to a text can't fail, here and below.
        let _ = write!(text, " ({generation})");
    }
    if let Some(interface) = &status.interface {
        let _ = write!(text, ", {interface}");
    }
    for address in &status.addresses {
        let _ = write!(text, "  {address}");
    }
    text.push('\n');
    text.push_str(&troubles(status));

    if !status.name_servers.is_empty() {
        let servers = status.name_servers.iter();
        let servers = servers.map(|it| format!("{} for {}", it.address, it.upstream));
        let _ = writeln!(text, "names at {}", servers.collect::<Vec<_>>().join(", "));
    }
    rows(&mut text, "peer", &status.peers, |peer| {
        let ends = match (&peer.local, &peer.remote) {
            (Some(local), Some(remote)) => format!("{local} → {remote}"),
            _ => "-".into(),
        };
        format!(
            "{}  {}\n    {ends}  rtt {}  handshake {}  sent {}  received {}",
            peer.id,
            path_of(peer),
            in_ms(peer.rtt_ms),
            peer.handshake_age_ms
                .map_or_else(|| "-".into(), |age| format!("{} ago", in_time(age))),
            in_bytes(peer.sent_bytes),
            in_bytes(peer.received_bytes),
        )
    });
    let silent = status.relays_silent_ms.filter(|ms| *ms >= SILENT_MS);
    let question = silent.map(|ms| {
        format!(
            "no answer for {}: does this network let UDP out, to port 3478?",
            in_time(ms)
        )
    });
    let unanswered = question.as_deref().unwrap_or("no answer yet");
    rows(&mut text, "relay", &status.relays, |relay| {
        let server = relay.server.as_deref().unwrap_or(unanswered);
        format!("{}  {server}  rtt {}", relay.id, in_ms(relay.rtt_ms))
    });
    // Between two attempts none is listed.
    if let Some(question) = question.filter(|_| status.relays.is_empty()) {
        let _ = writeln!(text, "relay  {question}");
    }
    rows(&mut text, "resource", &status.resources, |resource| {
        let address = resource.address.as_deref().unwrap_or("-");
        let by = match (&resource.gateway, resource.clients.len()) {
            (Some(gateway), _) => format!("by {gateway}"),
            (None, 0) if resource.reach.as_deref() == Some("offline") => "offline".into(),
            (None, 0) => "not in use".into(),
            (None, 1) => "1 client".into(),
            (None, clients) => format!("{clients} clients"),
        };
        format!("{}  {address}  {by}", resource.name)
    });
    if let Some(rejected) = status.rejected_datagrams {
        let dropped = status.dropped_from_tun + status.dropped_from_peers;
        let _ = writeln!(
            text,
            "packets dropped {dropped}{}  datagrams rejected {rejected}",
            reasons(status)
        );
    }

    text
}

/// ` (filtered 3, no-resource 1)`, the most frequent first.
fn reasons(status: &Shown) -> String {
    let mut counts = BTreeMap::<&str, u64>::new();
    for (reason, count) in status.drops_from_tun.iter().chain(&status.drops_from_peers) {
        *counts.entry(reason).or_default() += count;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if counts.is_empty() {
        return String::new();
    }
    let counts = counts
        .iter()
        .map(|(reason, count)| format!("{reason} {count}"));

    format!(" ({})", counts.collect::<Vec<_>>().join(", "))
}

/// `relayed through our relay for 12 s: the path before fell silent`.
fn path_of(peer: &Peer) -> String {
    let Some(path) = &peer.path else {
        return "connecting".into();
    };
    let mut text = path.clone();
    if let Some(via) = &peer.via {
        let _ = write!(text, " through {via}");
    }
    if let Some(age) = peer.path_age_ms {
        let _ = write!(text, " for {}", in_time(age));
    }
    if let Some(why) = &peer.why {
        let _ = write!(text, ": {}", reason(why));
    }

    text
}

/// Why a path is in use, in a sentence's end; what is not known is shown as it is.
fn reason(why: &str) -> &str {
    match why {
        "first" => "the first that worked",
        "better" => "better than the path before",
        "silence" => "the path before fell silent",
        "withdrawn" => "the path before was withdrawn",
        "network-changed" => "our network changed",
        "peer-moved" => "the peer sends this way",
        "configured" => "it was configured",
        other => other,
    }
}

fn rows<T>(text: &mut String, noun: &str, list: &[T], row: impl Fn(&T) -> String) {
    for item in list.iter().take(MAX_ROWS) {
        let _ = writeln!(text, "{noun} {}", row(item));
    }
    if list.len() > MAX_ROWS {
        let more = list.len() - MAX_ROWS;
        let _ = writeln!(text, "{noun} … and {more} more; see --json");
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn in_ms(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"))
}

/// Why the portal is away, and what it has refused last.
fn troubles(status: &Shown) -> String {
    let mut text = String::new();
    if let (Some(error), Some(away)) = (&status.portal_error, status.portal_away_ms) {
        let again = match status.portal_retry_ms {
            Some(ms) if ms > 0 => format!("again in {}", in_time(ms)),
            _ => "trying".to_owned(),
        };
        let _ = writeln!(text, "portal away for {} ({again}): {error}", in_time(away));
    }
    if let Some(refusal) = &status.last_refusal {
        let mut resources = status.resources.iter();
        let resource = resources.find(|resource| resource.id == refusal.resource);
        let name = resource.map_or(&refusal.resource, |resource| &resource.name);
        let reason = refusal.reason.replace('_', " ");
        let conditions = refusal.violated_properties.join(", ");
        let conditions = match conditions.is_empty() {
            true => conditions,
            false => format!(" by {conditions}"),
        };
        let age = in_time(refusal.age_ms);
        let _ = writeln!(
            text,
            "last refused: {name}, {reason}{conditions}, {age} ago"
        );
    }

    text
}

/// A time as people read it.
pub(crate) fn in_time(ms: u64) -> String {
    let seconds = ms / 1_000;

    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

/// A size as people read it.
fn in_bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

    let unit = UNITS.into_iter().find(|(size, _)| bytes >= *size);
    match unit {
        Some((size, name)) => format!("{:.1} {name}", bytes as f64 / size as f64),
        None => format!("{bytes} B"),
    }
}

impl From<StatusError> for Failure {
    fn from(error: StatusError) -> Self {
        Self::new(Exit::Failed, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_a_terminal_however_much_there_is() {
        let status = Shown {
            role: "client".into(),
            portal: "joined".into(),
            peers: (0..100).map(|_| Peer::default()).collect(),
            relays: (0..1).map(|_| Relay::default()).collect(),
            relays_silent_ms: Some(9_000),
            resources: (0..100).map(|_| Resource::default()).collect(),
            portal_error: Some("no way".into()),
            portal_away_ms: Some(1),
            last_refusal: Some(Refusal::default()),
            ..Shown::default()
        };

        assert!(table(&status).lines().count() <= 24, "{}", table(&status));
    }

    #[test]
    fn a_network_that_may_let_no_udp_out_is_named_once_relays_were_silent_for_a_while() {
        let silent = |ms| Shown {
            role: "client".into(),
            portal: "joined".into(),
            relays_silent_ms: ms,
            ..Shown::default()
        };

        let mut listed = silent(Some(12_000));
        listed.relays.push(Relay::default());
        for shown in [silent(Some(12_000)), listed] {
            let text = table(&shown);
            let question = "no answer for 12 s: does this network let UDP out";
            assert_eq!(text.matches(question).count(), 1, "{text}");
        }
        for ms in [None, Some(200)] {
            assert!(!table(&silent(ms)).contains("UDP"));
        }
    }

    #[test]
    fn a_path_is_told_with_whose_relay_since_when_and_why() {
        let peer = |answer| serde_json::from_value::<Peer>(answer).unwrap();
        for (answer, text) in [
            (serde_json::json!({}), "connecting"),
            (
                serde_json::json!({"path": "direct", "path_age_ms": 12_345, "why": "better"}),
                "direct for 12 s: better than the path before",
            ),
            (
                serde_json::json!({"path": "relayed", "via": "our relay", "path_age_ms": 600_000, "why": "later"}),
                "relayed through our relay for 10 min: later",
            ),
            (
                serde_json::json!({"path": "direct", "path_age_ms": 7_200_000}),
                "direct for 2 h",
            ),
        ] {
            assert_eq!(path_of(&peer(answer)), text);
        }
    }

    #[test]
    fn why_the_portal_is_away_and_what_it_refused_is_told() {
        let answer = serde_json::json!({
            "role": "client", "portal": "away", "portal_generation": "v1", "portal_away_ms": 12_345, "portal_retry_ms": 3_000,
            "portal_error": "no way", "resources": [{"id": "r1", "name": "wiki"}],
            "last_refusal": {"resource": "r1", "reason": "forbidden", "violated_properties": ["remote_ip"], "age_ms": 150_000},
        });
        let mut status: Shown = serde_json::from_value(answer).unwrap();
        let text = table(&status);
        assert!(
            text.starts_with(
                "client, portal away (v1)\n\
                 portal away for 12 s (again in 3 s): no way\n\
                 last refused: wiki, forbidden by remote_ip, 2 min ago\n"
            ),
            "{text}"
        );

        status.portal_retry_ms = Some(0);
        status.last_refusal = Some(Refusal {
            resource: "r2".into(),
            reason: "version_mismatch".into(),
            ..Refusal::default()
        });
        let text = table(&status);
        assert!(text.contains("(trying): no way\n"), "{text}");
        assert!(text.contains("r2, version mismatch, 0 s ago\n"), "{text}");
    }

    #[test]
    fn an_answer_with_unknown_fields_and_without_known_ones_is_shown() {
        let answer = serde_json::json!({"role": "relay", "portal": "joined", "later": [1]});

        let status: Shown = serde_json::from_value(answer).unwrap();
        assert_eq!(table(&status), "relay, portal joined\n");
    }

    #[test]
    fn what_was_dropped_is_told_by_reason_the_most_frequent_first() {
        let answer = serde_json::json!({
            "role": "client", "portal": "joined", "rejected_datagrams": 1, "dropped_from_tun": 4, "dropped_from_peers": 2,
            "drops_from_tun": {"filtered": 1, "no-resource": 3}, "drops_from_peers": {"filtered": 2},
        });

        let status: Shown = serde_json::from_value(answer).unwrap();
        let text = table(&status);
        assert!(
            text.ends_with("packets dropped 6 (filtered 3, no-resource 3)  datagrams rejected 1\n"),
            "{text}"
        );
    }

    #[test]
    fn the_worse_of_two_loads_has_the_longer_times() {
        let answer = |turn: f64, delay: f64| {
            serde_json::json!({"role": "client", "load": {
                "turns": 7,
                "turn_ms": {"p50": 0.1, "p99": 0.2, "p999": 0.3, "max": turn},
                "timer_delay_ms": {"p50": 0.0, "p99": delay, "p999": 6.0, "max": 9.0},
            }})
        };
        let one = load_in(&answer(3.0, 5.0)).unwrap();
        let other = load_in(&answer(4.0, 1.0)).unwrap();

        let worse = one.worse(other);
        assert_eq!(worse.turns.max, 4.0);
        assert_eq!(worse.timer_delays, one.timer_delays);
        assert_eq!(one.worse(one), one);
    }

    #[test]
    fn who_tells_no_load_is_not_taken_for_an_idle_one() {
        for answer in [
            serde_json::json!({"role": "relay"}),
            serde_json::json!({"load": {"turn_ms": {"p50": 0.1, "p99": 0.2, "p999": 0.2, "max": 0.3}}}),
        ] {
            assert!(load_in(&answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(in_bytes(1023), "1023 B");
        assert_eq!(in_bytes(67_108_864), "64.0 MiB");
    }
}
