//! `connlib why`: what would become of a packet, and why.

use std::fmt::Write as _;

use connlib::status;
use connlib::why::Question;
use serde::Deserialize;

use crate::args::WhyArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure, print};
use crate::status::{in_time, odd, socket_of};

/// Asks a running client or gateway, and prints its answer.
///
/// # Errors
///
/// Exit 1: nothing runs there, or it doesn't answer. Exit 2: that is no packet, or several run and none was named.
pub(crate) fn run(args: &WhyArgs, environment: &Environment) -> Result<(), Failure> {
    let packet: Question = args.packet.parse().map_err(|error| {
        Failure::new(
            Exit::WrongUse,
            format_args!(
                "{error}; a packet is ADDRESS or NAME, then :PORT, then /tcp, /udp or /icmp"
            ),
        )
    })?;
    let socket = socket_of(args.socket.as_ref(), environment)?;
    let answer = status::why(&socket, &packet)?;
    if let Some(error) = answer.get("error").and_then(|error| error.as_str()) {
        return Err(Failure::new(Exit::Failed, error.to_owned()));
    }
    if args.json {
        return print(format_args!("{answer:#}\n"));
    }
    let shown: Shown = serde_json::from_value(answer).map_err(|error| odd(&socket, &error))?;
    let texts: Vec<_> = shown.packets.iter().map(table).collect();

    print(texts.join("\n"))
}

#[derive(Debug, Deserialize)]
struct Shown {
    packets: Vec<Packet>,
}

/// One explanation, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Packet {
    packet: String,
    client: Option<String>,
    verdict: String,
    why: String,
    address: Option<String>,
    resource: Option<Resource>,
    filters: Vec<String>,
    gateway: Option<String>,
    path: Option<String>,
    ends_in_secs: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resource {
    name: String,
    address: Option<String>,
}

fn table(packet: &Packet) -> String {
    let verdict = match packet.verdict.as_str() {
        "passes" => "passes",
        "waits" => "would wait",
        "refused" => "is refused",
        "outside" => "stays outside of the tunnel",
        other => other,
    };
    let mut text = match &packet.client {
        Some(client) => format!("{} from client {client} {verdict}: ", packet.packet),
        None => format!("{} {verdict}: ", packet.packet),
    };
    text.push_str(&packet.why);
    text.push('\n');
    let mut row = |noun: &str, value: &str| {
        // Writing to a text can't fail.
        let _ = writeln!(text, "  {noun:<9} {value}");
    };
    if let Some(address) = &packet.address {
        row("address", address);
    }
    if let Some(resource) = &packet.resource {
        let address = resource.address.as_deref();
        let address = address.map_or_else(String::new, |address| format!(" ({address})"));
        row("resource", &format!("{}{address}", resource.name));
        let filters = match packet.filters.is_empty() {
            true => "none: everything may pass".to_owned(),
            false => packet.filters.join(", "),
        };
        row("filters", &filters);
    }
    if let Some(secs) = packet.ends_in_secs {
        row("access", &format!("ends in {}", in_time(secs * 1_000)));
    }
    if let Some(gateway) = &packet.gateway {
        row("gateway", gateway);
    }
    if let Some(path) = &packet.path {
        row("path", path);
    }

    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_known_is_shown_in_one_order() {
        let packet: Packet = serde_json::from_value(serde_json::json!({
            "packet": "wiki.corp.test:443/tcp", "client": null, "verdict": "refused", "why": "the filters don't let it pass",
            "address": "100.96.0.1", "resource": {"id": "x", "name": "wiki", "address": "*.corp.test"},
            "filters": ["tcp/80-90", "icmp"], "gateway": "G", "path": "direct", "ends_in_secs": 90,
        }))
        .unwrap();
        assert_eq!(
            table(&packet),
            "wiki.corp.test:443/tcp is refused: the filters don't let it pass\n  \
             address   100.96.0.1\n  resource  wiki (*.corp.test)\n  filters   tcp/80-90, icmp\n  \
             access    ends in 90 s\n  gateway   G\n  path      direct\n"
        );
    }

    #[test]
    fn what_is_not_known_takes_no_row() {
        let packet = Packet {
            packet: "192.0.2.1/icmp".to_owned(),
            verdict: "outside".to_owned(),
            why: "no resource has it".to_owned(),
            client: Some("C".to_owned()),
            ..Packet::default()
        };
        assert_eq!(
            table(&packet),
            "192.0.2.1/icmp from client C stays outside of the tunnel: no resource has it\n"
        );
    }
}
