//! What happens in each scene.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::namespace::run_in;

use super::{
    BINDING, BOTTLENECK, EIGHT_JAIN, EIGHT_LEAST, Figure, HEARTBEAT, LATENESS, NEWCOMER, ONE_FLOW,
    OTHER_PEER, OUT_OF_ORDER, REJOINS, RELAYED_JAIN, RELAYED_LEAST, REORDERING, RTT, TURN,
};
use crate::bench::contestant::Contestant;
use crate::bench::load::{PORT, Run};
use crate::bench::names::{Direction, Traffic};
use crate::bench::sparse::Question;
use crate::bench::standing::Standing;
use crate::bench::stats::{RoundTrips, jain, min_share};
use crate::exit::{Exit, Failure};
use crate::rig::contact::ping;
use crate::rig::ping::Pinger;
use crate::rig::plan::{Place, RESOURCE};
use crate::rig::system::PathKind;

/// Rows with what they have shown.
type Figures = Vec<(&'static str, Figure)>;

/// Where the relay is asked.
const STUN_PORT: u16 = 3478;

/// What saturates.
const STREAMS: u8 = 4;

/// Eight loads don't start at the same moment: the first ones have everything for a while.
const START: Duration = Duration::from_secs(2);

/// The flows of the client that has many.
const MANY: u8 = 64;

/// What a sender counts when an acknowledgement shows that packets have overtaken others; a lost one is none.
const REORDERED: [&str; 3] = ["TCPSACKReorder", "TCPRenoReorder", "TCPTSReorder"];

/// The cable that is the bottleneck, in the words of tc-tbf(8). 50 ms is what a modem of that rate may well hold.
const NARROW: &str = "root tbf rate 100mbit burst 64kb latency 50ms";

impl Standing<'_> {
    pub(super) async fn greedy(&self, duration: Duration) -> Result<Figures, Failure> {
        let load = self.iperf(load(
            Place::Client,
            PORT,
            STREAMS,
            Direction::Both,
            duration,
        ));
        let [client, other, ..] = Place::CLIENTS;
        let same_peer = self.sparse(client, Question::Echo, duration);
        let other_peer = self.sparse(other, Question::Echo, duration);

        let heartbeats = self.heartbeats(client, duration);
        let loading = async {
            load.await?;
            // Before others have waited for their last packets.
            let (client, gateway) = (self.load(client)?, self.load(Place::Gateway)?);
            Ok(client.zip(gateway))
        };

        let joins = self.children.joins();
        let (ends, same_peer, other_peer, heartbeats) =
            tokio::try_join!(loading, same_peer, other_peer, heartbeats)?;
        let mut figures = vec![
            (RTT, Figure::Delays(same_peer)),
            (OTHER_PEER, Figure::Delays(other_peer)),
        ];
        figures.extend(heartbeats.map(|trips| (HEARTBEAT, Figure::Delays(trips))));
        if self.contestant == Contestant::Ours {
            let rejoins = self.children.joins().saturating_sub(joins);
            figures.push((REJOINS, Figure::Value(rejoins as f64)));
        }
        if let Some((client, gateway)) = ends {
            let worse = client.worse(gateway);
            figures.push((LATENESS, Figure::Quantiles(worse.timer_delays)));
            figures.push((TURN, Figure::Quantiles(worse.turns)));
        }
        Ok(figures)
    }

    pub(super) async fn bottleneck(&self, duration: Duration) -> Result<Figures, Failure> {
        let Some(tc) = self.bench.tc.as_deref() else {
            self.bench
                .narration
                .step("No bottleneck: tc is not in PATH; bring it with `apt-get install iproute2`");
            return Ok(Vec::new());
        };
        self.narrow(tc).await?;
        let load = self.iperf(load(Place::Client, PORT, STREAMS, Direction::Up, duration));

        let (_, trips) =
            tokio::try_join!(load, self.sparse(Place::Client, Question::Echo, duration))?;
        Ok(vec![(BOTTLENECK, Figure::Delays(trips))])
    }

    pub(super) async fn eight(
        &self,
        path: PathKind,
        duration: Duration,
    ) -> Result<Figures, Failure> {
        let [a, b, c, d, e, f, g, h] = Place::CLIENTS;
        let one = async |place, port| {
            let run = Run {
                omitted: START,
                ..load(place, port, 1, Direction::Up, duration)
            };
            Ok::<f64, Failure>(self.iperf(run).await?.bps)
        };
        let (a, b, c, d, e, f, g, h) = tokio::try_join!(
            one(a, PORT),
            one(b, PORT + 1),
            one(c, PORT + 2),
            one(d, PORT + 3),
            one(e, PORT + 4),
            one(f, PORT + 5),
            one(g, PORT + 6),
            one(h, PORT + 7),
        )?;
        let shares = [a, b, c, d, e, f, g, h];
        let told = shares.map(|bps| format!("{:.0}", bps / 1e6)).join(", ");
        self.bench.narration.step(format_args!(
            "Eight clients, {path}, {}: {told} Mbit/s",
            self.contestant
        ));

        let (jain_row, least_row) = match path {
            PathKind::Direct => (EIGHT_JAIN, EIGHT_LEAST),
            PathKind::Relayed => (RELAYED_JAIN, RELAYED_LEAST),
        };
        Ok([(jain_row, jain(&shares)), (least_row, min_share(&shares))]
            .into_iter()
            .filter_map(|(row, value)| Some((row, Figure::Value(value?))))
            .collect())
    }

    pub(super) async fn many_flows(&self, duration: Duration) -> Result<Figures, Failure> {
        let [many, one, ..] = Place::CLIENTS;
        let many = self.iperf(load(many, PORT, MANY, Direction::Up, duration));
        let one = self.iperf(load(one, PORT + 1, 1, Direction::Up, duration));

        let (many, one) = tokio::try_join!(many, one)?;
        Ok(vec![(
            ONE_FLOW,
            Figure::Value(one.bps / (one.bps + many.bps).max(1.0)),
        )])
    }

    pub(super) async fn newcomers(&self, duration: Duration) -> Result<Figures, Failure> {
        let load = self.iperf(load(
            Place::Client,
            PORT,
            STREAMS,
            Direction::Both,
            duration,
        ));
        let coming = async {
            let mut trips = RoundTrips::default();
            let clock = Clock::new();
            let end_at = clock.now() + duration;
            for &place in &self.waiting {
                // What comes after the load says nothing.
                if clock.now() >= end_at {
                    break;
                }
                let first = self.first_reply(place).await?;
                trips.sent += 1;
                trips.millis.push(first.as_secs_f64() * 1e3);
            }
            Ok(trips)
        };

        let (_, trips) = tokio::try_join!(load, coming)?;
        Ok(vec![(NEWCOMER, Figure::Delays(trips))])
    }

    pub(super) async fn busy_relay(&self, duration: Duration) -> Result<Figures, Failure> {
        let load = self.iperf(load(
            Place::Client,
            PORT,
            STREAMS,
            Direction::Both,
            duration,
        ));
        let relay = SocketAddr::from((Place::Relay.subnet().host_v4(), STUN_PORT));
        let [_, other, ..] = Place::CLIENTS;

        let asking = self.sparse(other, Question::Binding(relay), duration);
        let (_, trips) = tokio::try_join!(load, asking)?;
        Ok(vec![(BINDING, Figure::Delays(trips))])
    }

    pub(super) async fn order(&self, duration: Duration) -> Result<Figures, Failure> {
        let look = || {
            let early = self.tcp_counters(Place::Resource, &["TCPOFOQueue"])?;
            let reordered = self.tcp_counters(Place::Client, &REORDERED)?;
            Ok::<_, Failure>((early, reordered))
        };
        let before = look()?;
        self.iperf(load(Place::Client, PORT, 1, Direction::Up, duration))
            .await?;
        let after = look()?;

        let grown = |before, after: u64| Figure::Value(after.saturating_sub(before) as f64);
        Ok(vec![
            (OUT_OF_ORDER, grown(before.0, after.0)),
            (REORDERING, grown(before.1, after.1)),
        ])
    }

    /// Makes the router's cable to the gateway a bottleneck.
    async fn narrow(&self, tc: &Path) -> Result<(), Failure> {
        let line = format!("qdisc add dev {} {NARROW}", Place::Gateway);
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let router = self.network.namespace(Place::Router)?;
        let output = self
            .children
            .command(tc, Some(router), &arguments)?
            .output()
            .await
            .map_err(|error| Failure::os(format_args!("start {}", tc.display()), &error))?;
        if output.status.success() {
            return Ok(());
        }

        Err(Failure::new(
            Exit::Failed,
            format_args!(
                "tc does not make a bottleneck: {}; does the kernel have sch_tbf?",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        ))
    }

    /// Starts a client that waits, and measures from its first packet to its first reply.
    async fn first_reply(&self, place: Place) -> Result<Duration, Failure> {
        const PATIENCE: Duration = Duration::from_secs(10);

        self.start_waiting(place).await?;
        let mut pinger = Pinger::open(self.network.namespace(place)?, RESOURCE)?;
        let clock = Clock::new();
        let started_at = clock.now();
        while clock.now() - started_at < PATIENCE {
            let reply;
            (pinger, reply) = ping(pinger).await?;
            if let Some(reply) = reply {
                return Ok(reply.came_at - started_at);
            }
        }

        Ok(PATIENCE)
    }

    /// The sum of some of the kernel's counters for TCP at a place.
    fn tcp_counters(&self, place: Place, names: &[&str]) -> Result<u64, Failure> {
        const PATH: &str = "/proc/thread-self/net/netstat";

        let text = run_in(self.network.namespace(place)?, || fs::read_to_string(PATH))?;
        text.and_then(|text| {
            let values = names.iter().map(|name| counter(&text, "TcpExt:", name));
            values.sum::<Option<u64>>().ok_or_else(|| {
                let missing = format!("it lacks one of {}", names.join(", "));
                io::Error::new(io::ErrorKind::InvalidData, missing)
            })
        })
        .map_err(|error| Failure::os(format_args!("read {PATH}"), &error))
    }
}

fn load(place: Place, port: u16, streams: u8, direction: Direction, duration: Duration) -> Run {
    Run {
        place,
        port,
        traffic: Traffic::Tcp { streams },
        direction,
        rate: None,
        duration,
        omitted: Duration::ZERO,
    }
}

/// A counter of `/proc/net/netstat`: a line of names, and a line of values in the same order.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let names = lines.next()?.split_ascii_whitespace();
    let values = lines.next()?.split_ascii_whitespace();
    let (_, value) = names.zip(values).find(|(found, _)| *found == name)?;

    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names() {
        let text = "TcpExt: SyncookiesSent TCPOFOQueue\nTcpExt: 1 42\nIpExt: InOctets\nIpExt: 7\n";

        assert_eq!(counter(text, "TcpExt:", "TCPOFOQueue"), Some(42));
        assert_eq!(counter(text, "IpExt:", "InOctets"), Some(7));
        assert_eq!(counter(text, "TcpExt:", "InOctets"), None);
        assert_eq!(counter("", "TcpExt:", "TCPOFOQueue"), None);
    }
}
