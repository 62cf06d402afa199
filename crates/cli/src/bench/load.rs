//! Load: iperf3 between a client and the server, with what it costs and what others notice of it.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use connlib_os::clock::Clock;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::cost::{Cost, Spent};
use super::iperf::{self, Carried};
use super::names::{Direction, Traffic};
use super::sparse::{self, Question};
use super::standing::Standing;
use super::stats::RoundTrips;
use crate::exit::{Exit, Failure};
use crate::rig::broken;
use crate::rig::plan::{Place, RESOURCE};

/// What a load has shown.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) carried: Carried,
    pub(super) spent: Spent,
    /// What a sparse flow has seen meanwhile; `None` if there was none.
    pub(super) trips: Option<RoundTrips>,
}

/// One run of iperf3.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Where the client is.
    pub(super) place: Place,
    /// Runs at the same time have different ports.
    pub(super) port: u16,
    pub(super) traffic: Traffic,
    pub(super) direction: Direction,
    /// What UDP offers, in bits per second.
    pub(super) rate: Option<f64>,
    pub(super) duration: Duration,
    /// What of the load's beginning doesn't count; it comes on top.
    pub(super) omitted: Duration,
}

/// Where iperf3 listens.
pub(super) const PORT: u16 = 5201;

/// How long iperf3 may take beyond its load.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long iperf3's server may take to listen, and to end.
const SOON: Duration = Duration::from_secs(3);

/// Between two looks at whether it listens.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The payload of a datagram, in bytes: what most who carry UDP fill them with.
const DATAGRAM_LEN: u32 = 1_200;

/// A load that is about to begin and one that is about to end aren't yet, or not any more, what is measured.
const LEAD: Duration = Duration::from_millis(500);

/// At least so much is left of a short load.
const LEAD_SHARE: u32 = 5;

impl Standing<'_> {
    /// Loads the way with TCP, and watches a sparse flow of the same client.
    ///
    /// # Errors
    ///
    /// Exit 1: iperf3 failed.
    pub(super) async fn tcp(
        &self,
        streams: u8,
        direction: Direction,
        duration: Duration,
    ) -> Result<Outcome, Failure> {
        let run = Run {
            place: Place::Client,
            port: PORT,
            traffic: Traffic::Tcp { streams },
            direction,
            rate: None,
            duration,
            omitted: Duration::ZERO,
        };
        let before = Cost::read(&self.processes)?;
        let loading = async {
            let carried = self.iperf(run).await?;
            // Before the sparse flow has waited for its last packets.
            Ok((carried, Cost::read(&self.processes)?))
        };

        let ((carried, after), trips) = tokio::try_join!(
            loading,
            self.sparse(Place::Client, Question::Echo, duration)
        )?;
        Ok(Outcome {
            carried,
            spent: after.since(&before),
            trips: Some(trips),
        })
    }

    /// Sends a sparse flow from `place` during the middle of a load that takes so long.
    ///
    /// # Errors
    ///
    /// Exit 5: its socket failed.
    pub(super) async fn sparse(
        &self,
        place: Place,
        question: Question,
        load: Duration,
    ) -> Result<RoundTrips, Failure> {
        let lead = lead_of(load);
        let socket = sparse::open(self.network.namespace(place)?, question)?;
        sleep(lead).await;

        spawn_blocking(move || sparse::flow(&socket, question, load - 2 * lead))
            .await
            .map_err(broken)?
    }

    /// Runs iperf3 once, with a server that ends with it.
    ///
    /// # Errors
    ///
    /// Exit 1: it failed, or takes too long; the message has its own words.
    pub(super) async fn iperf(&self, run: Run) -> Result<Carried, Failure> {
        let failed = |problem: &dyn std::fmt::Display| {
            Failure::new(
                Exit::Failed,
                format_args!("iperf3 through {} failed: {problem}", self.contestant),
            )
        };
        let program = &self.bench.iperf3;
        let start = |error| Failure::os(format_args!("start {}", program.display()), &error);
        let at_server = self.network.namespace(Place::Resource)?;
        let mut server = self
            .children
            .command(program, Some(at_server), &server_arguments(run.port))?
            .spawn()
            .map_err(start)?;
        self.wait_until_listening(server.id().unwrap_or_default(), run.port)
            .await?;

        let at_client = self.network.namespace(run.place)?;
        let client = self
            .children
            .command(program, Some(at_client), &client_arguments(&run))?
            .stdout(Stdio::piped())
            .spawn()
            .map_err(start)?;
        let output = timeout(
            run.duration + run.omitted + PATIENCE,
            client.wait_with_output(),
        )
        .await
        .map_err(|_| failed(&"it doesn't end; the tunnel may be stuck"))?
        .map_err(|error| failed(&error))?;
        if timeout(SOON, server.wait()).await.is_err() {
            // It fails if the server has ended by now.
            let _ = server.kill().await;
        }

        let text = String::from_utf8_lossy(&output.stdout);
        iperf::parse(&text).map_err(|problem| failed(&problem))
    }

    /// Looks into the server's namespace until the port is open: a connection would be taken for a client's.
    async fn wait_until_listening(&self, pid: u32, port: u16) -> Result<(), Failure> {
        let clock = Clock::new();
        let end_at = clock.now() + SOON;
        while clock.now() < end_at {
            let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
            if is_listening(&table, port) {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }

        Err(Failure::new(
            Exit::Failed,
            format_args!("iperf3 does not listen at {RESOURCE}:{port}"),
        ))
    }
}

/// How long after a load's beginning, and before its end, it isn't measured.
pub(super) fn lead_of(load: Duration) -> Duration {
    LEAD.min(load / LEAD_SHARE)
}

fn server_arguments(port: u16) -> Vec<String> {
    let words = format!("--server --one-off --bind {RESOURCE} --port {port}");

    words.split(' ').map(str::to_owned).collect()
}

fn client_arguments(run: &Run) -> Vec<String> {
    let mut words = format!(
        "--client {RESOURCE} --port {} --json --connect-timeout 5000 --time {}",
        run.port,
        run.duration.as_secs().max(1)
    );
    if !run.omitted.is_zero() {
        words.push_str(&format!(" --omit {}", run.omitted.as_secs().max(1)));
    }
    match run.direction {
        Direction::Up => {}
        Direction::Down => words.push_str(" --reverse"),
        Direction::Both => words.push_str(" --bidir"),
    }
    match run.traffic {
        Traffic::Tcp { streams } => words.push_str(&format!(" --parallel {streams}")),
        Traffic::Udp => words.push_str(&format!(
            " --udp --length {DATAGRAM_LEN} --window 4M --bitrate {:.0}",
            run.rate.unwrap_or_default()
        )),
    }

    words.split(' ').map(str::to_owned).collect()
}

/// Whether `/proc/net/tcp` has a socket that waits for connections at that port.
fn is_listening(table: &str, port: u16) -> bool {
    let local = format!(":{port:04X}");
    const LISTEN: &str = "0A";

    table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let is_ours = fields
            .next()
            .is_some_and(|address| address.ends_with(&local));
        is_ours && fields.nth(1) == Some(LISTEN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_port_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
                     0: 0A00140A:1451 00000000:0000 0A 00000000:00000000 00:00000000\n   \
                     1: 0A00140A:1452 0A00140A:9999 01 00000000:00000000 00:00000000\n";

        assert!(is_listening(table, 5201));
        assert!(!is_listening(table, 5202));
        assert!(!is_listening("", 5201));
    }

    #[test]
    fn iperf3_is_told_what_to_send() {
        let mut run = Run {
            place: Place::Client,
            port: PORT,
            traffic: Traffic::Tcp { streams: 4 },
            direction: Direction::Down,
            rate: None,
            duration: Duration::from_secs(5),
            omitted: Duration::ZERO,
        };
        let line = client_arguments(&run).join(" ");
        assert!(line.contains("--time 5 --reverse --parallel 4"), "{line}");

        run.traffic = Traffic::Udp;
        run.direction = Direction::Up;
        run.rate = Some(1e9);
        let line = client_arguments(&run).join(" ");
        assert!(
            line.ends_with("--udp --length 1200 --window 4M --bitrate 1000000000"),
            "{line}"
        );
    }
}
