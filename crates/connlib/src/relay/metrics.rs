//! What a relay counts, for Prometheus (relay.md §20). Nothing is labelled with addresses or ports.

use std::fmt;

use connlib_relay::Traffic;
use connlib_wire::stun::Method;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::{Registry, Unit};

use crate::data_plane::Counts;
use crate::event_loop;

/// The format, OpenMetrics 1.0.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything there is to tell; of a relay that serves nobody itself only how it stands.
pub(super) fn text(is_joined: bool, is_ready: bool, counts: Option<Counts>) -> String {
    let mut registry = Registry::with_prefix("connlib_relay");
    registry.register_collector(Box::new(Shown {
        is_joined,
        is_ready,
        counts,
    }));
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &registry) {
        tracing::debug!(%error, "The counters can't be written down");
    }

    text
}

#[derive(Debug)]
struct Shown {
    is_joined: bool,
    is_ready: bool,
    counts: Option<Counts>,
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        encoder
            .encode_descriptor("build", "What runs", None, MetricType::Info)?
            .encode_info(&version)?;
        let mut encoder = Writer(encoder);
        encoder.gauge("ready", "Whoever comes now is served", self.is_ready.into())?;
        encoder.gauge(
            "portal_joined",
            "The portal knows the relay",
            self.is_joined.into(),
        )?;
        let Some(counts) = &self.counts else {
            return Ok(());
        };

        encoder.what_there_is(&counts.server)?;
        encoder.what_was_answered(&counts.server)?;
        encoder.what_was_relayed(&counts.server)?;
        encoder.what_was_dropped(counts)
    }
}

struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn what_there_is(&mut self, stats: &connlib_relay::Stats) -> fmt::Result {
        let gauges = [
            ("allocations", "Allocations there are", stats.allocations),
            ("channels", "Channels that carry data", stats.channels),
            (
                "permissions",
                "Addresses of peers that are permitted, once per allocation",
                stats.permissions,
            ),
            (
                "reservations",
                "Ports that are kept for a second allocation",
                stats.reservations,
            ),
        ];
        for (name, help, value) in gauges {
            self.gauge(name, help, value as u64)?;
        }
        let counters = [
            (
                "allocations_made",
                "Allocations made",
                stats.allocations_made,
            ),
            ("channels_made", "Channels bound", stats.channels_made),
            (
                "permissions_made",
                "Permissions installed",
                stats.permissions_made,
            ),
        ];
        for (name, help, value) in counters {
            write(value, self.counter(name, help, None)?)?;
        }

        Ok(())
    }

    fn what_was_answered(&mut self, stats: &connlib_relay::Stats) -> fmt::Result {
        let mut metric = self.counter("responses", "Answers to requests", None)?;
        for ((method, error), count) in &stats.answers {
            let class = if error.is_some() { "error" } else { "success" };
            let code = error.map(|code| code.to_string()).unwrap_or_default();
            let labels = [
                ("message_type", message_type(*method)),
                ("response_class", class),
                ("error_code", &code),
            ];
            write(*count, metric.encode_family(&labels)?)?;
        }

        Ok(())
    }

    fn what_was_relayed(&mut self, stats: &connlib_relay::Stats) -> fmt::Result {
        let ways = [
            ("to_peers", "channel", stats.to_peers),
            ("to_peers", "indication", stats.sent_to_peers),
            ("to_clients", "channel", stats.to_clients),
            ("to_clients", "indication", stats.indicated_to_clients),
            ("between_clients", "any", stats.between_clients),
        ];
        let help = "Payload that was relayed, headers of channels and indications left out";
        self.each_way("relayed", help, Some(&Unit::Bytes), ways, |traffic| {
            traffic.bytes
        })?;
        self.each_way(
            "relayed_datagrams",
            "Datagrams that were relayed",
            None,
            ways,
            |traffic| traffic.datagrams,
        )
    }

    fn each_way(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        ways: [(&str, &str, Traffic); 5],
        value: impl Fn(Traffic) -> u64,
    ) -> fmt::Result {
        let mut metric = self.counter(name, help, unit)?;
        for (direction, by, traffic) in ways {
            let labels = [("direction", direction), ("by", by)];
            write(value(traffic), metric.encode_family(&labels)?)?;
        }

        Ok(())
    }

    fn what_was_dropped(&mut self, counts: &Counts) -> fmt::Result {
        let help = "Datagrams that went nowhere, by reason";
        let mut metric = self.counter("dropped_datagrams", help, None)?;
        let by_server = connlib_relay::DropReason::ALL
            .map(|reason| (snake(reason), counts.server.dropped(reason)));
        let by_loop = event_loop::DropReason::ALL
            .map(|reason| (snake(reason), counts.event_loop.dropped(reason)));
        // What a relay can't have stays zero, and need not be seen.
        let by_loop = by_loop.into_iter().filter(|(_, count)| *count > 0);
        for (reason, count) in by_server.into_iter().chain(by_loop) {
            write(count, metric.encode_family(&[("reason", reason)])?)?;
        }
        let help = "System calls that failed";
        write(
            counts.event_loop.errors,
            self.counter("socket_errors", help, None)?,
        )
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    fn counter<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0
            .encode_descriptor(name, help, unit, MetricType::Counter)
    }
}

/// Writes the value of a counter.
fn write(value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
    ConstCounter::new(value).encode(encoder)
}

/// Names of requests as the forerunner's dashboards have them.
fn message_type(method: Method) -> &'static str {
    match method {
        Method::Binding => "binding",
        Method::Allocate => "allocate",
        Method::Refresh => "refresh",
        Method::ChannelBind => "channelbind",
        Method::CreatePermission => "createpermission",
        Method::Send | Method::Data | Method::Other(_) | _ => "other",
    }
}

/// `NoAllocation` as `no_allocation`.
fn snake(reason: impl fmt::Debug) -> String {
    let mut name = String::new();
    for letter in format!("{reason:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }

    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_written_down_by_names_that_stay() {
        let mut counts = Counts::default();
        counts.server.allocations = 3;
        counts.server.to_peers = Traffic {
            datagrams: 2,
            bytes: 2_400,
        };
        let unauthorized = (Method::Allocate, Some(401));
        counts.server.answers.insert(unauthorized, 7);
        counts.server.answers.insert((Method::Binding, None), 9);

        let text = text(true, false, Some(counts));

        for line in [
            "connlib_relay_ready 0",
            "connlib_relay_portal_joined 1",
            "connlib_relay_allocations 3",
            "connlib_relay_relayed_bytes_total{direction=\"to_peers\",by=\"channel\"} 2400",
            "connlib_relay_relayed_datagrams_total{direction=\"to_peers\",by=\"channel\"} 2",
            "connlib_relay_responses_total{message_type=\"allocate\",response_class=\"error\",error_code=\"401\"} 7",
            "connlib_relay_responses_total{message_type=\"binding\",response_class=\"success\",error_code=\"\"} 9",
            "connlib_relay_dropped_datagrams_total{reason=\"no_allocation\"} 0",
            "connlib_relay_socket_errors_total 0",
            "# TYPE connlib_relay_allocations gauge",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn one_that_serves_nobody_itself_tells_how_it_stands() {
        let text = text(false, false, None);

        assert!(text.contains("connlib_relay_portal_joined 0"), "{text}");
        assert!(!text.contains("allocations"), "{text}");
    }
}
