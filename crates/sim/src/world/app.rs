//! Who uses the network: a program that sends and sends again until it is answered, and a host that echoes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::buffer::Pool;
use connlib_wire::ip::{self, Packet};

use crate::portal::{CLIENT_V4, GATEWAY_V4};
use crate::scenario::Scenario;

/// When the program sends first: relays have answered by then, or not.
pub(super) const FIRST_AT: Duration = Duration::from_millis(300);

/// How long it waits for an answer before it sends again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long the host behind the gateway takes.
pub(super) const ECHO_AFTER: Duration = Duration::from_millis(1);

/// How many requests follow the end of a grant.
pub(super) const FORBIDDEN: u32 = 5;

/// The span in which nobody sends.
pub(super) const QUIET_FROM: Duration = Duration::from_secs(36);
pub(super) const QUIET_UNTIL: Duration = Duration::from_secs(40);

/// How often a request is sent before the program gives up.
const MAX_ATTEMPTS: u32 = 12;

const HOST: [u8; 4] = [10, 20, 0, 10];
const ECHO_PORT: u16 = 7;
const OWN_PORT: u16 = 5_000;
const HEADER_LEN: usize = 8;

pub(super) struct App {
    pings: BTreeMap<u32, Ping>,
    allowed: u32,
    size: usize,
    first_sent_at: Option<Instant>,
    first_reply_at: Option<Instant>,
    pool: Pool,
}

#[derive(Default)]
struct Ping {
    attempts: u32,
    /// How often each attempt was answered.
    replies: BTreeMap<u32, u32>,
}

impl App {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            pings: BTreeMap::new(),
            allowed: scenario.pings,
            size: scenario.ping_size.max(HEADER_LEN),
            first_sent_at: None,
            first_reply_at: None,
            pool: Pool::new(2_048, 8),
        }
    }

    /// The packet of a request's next attempt; `None` once it was answered or given up.
    pub(super) fn ping(&mut self, now: Instant, number: u32) -> Option<Vec<u8>> {
        let ping = self.pings.entry(number).or_default();
        if !ping.replies.is_empty() || ping.attempts >= MAX_ATTEMPTS {
            return None;
        }
        self.first_sent_at.get_or_insert(now);
        let payload = payload(number, ping.attempts, self.size);
        ping.attempts += 1;

        self.packet((CLIENT_V4, OWN_PORT), (HOST, ECHO_PORT), &payload)
    }

    /// Answers a packet that left the gateway's TUN device; an error if it is none that may be there.
    pub(super) fn echo(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let packet =
            Packet::parse(bytes).map_err(|error| format!("on the gateway's TUN: {error}"))?;
        if !packet.checksums_match() {
            return Err("a packet on the gateway's TUN has a wrong checksum".to_owned());
        }
        let (source, destination) = (packet.source(), packet.destination());
        if (source, destination) != (IpAddr::from(CLIENT_V4), IpAddr::from(HOST)) {
            return Err(format!(
                "a packet from {source} to {destination} on the gateway's TUN"
            ));
        }

        self.packet((HOST, ECHO_PORT), (CLIENT_V4, OWN_PORT), packet.payload())
            .ok_or_else(|| "an echo that doesn't fit".to_owned())
    }

    /// Takes a packet that left the client's TUN device; an error if it is none that may be there.
    pub(super) fn receive(&mut self, now: Instant, bytes: &[u8]) -> Result<(), String> {
        let packet =
            Packet::parse(bytes).map_err(|error| format!("on the client's TUN: {error}"))?;
        if !packet.checksums_match() {
            return Err("a packet on the client's TUN has a wrong checksum".to_owned());
        }
        if packet.is_icmp_error() {
            // The refusal of what is not granted; which requests may be refused is judged at the end.
            return Ok(());
        }
        let source = packet.source();
        if source != IpAddr::from(HOST) && source != IpAddr::from(GATEWAY_V4) {
            return Err(format!("a packet from {source} on the client's TUN"));
        }
        let (number, attempt) =
            numbers(packet.payload()).ok_or("a reply that was never asked for")?;
        if packet.payload() != payload(number, attempt, self.size) {
            return Err(format!("the reply to request {number} came back changed"));
        }
        self.first_reply_at.get_or_insert(now);
        let ping = self.pings.entry(number).or_default();
        let times = ping.replies.entry(attempt).or_default();
        *times += 1;
        if *times > 1 {
            return Err(format!(
                "request {number}, attempt {attempt} was answered {times} times"
            ));
        }

        Ok(())
    }

    /// Judges the whole run: what was allowed was answered, and without loss at the first attempt's every packet.
    pub(super) fn judge(&self, is_lossy: bool) -> Option<String> {
        for (number, ping) in &self.pings {
            let is_allowed = *number < self.allowed;
            if is_allowed && ping.replies.is_empty() {
                return Some(format!("request {number} was never answered"));
            }
            if !is_allowed && !ping.replies.is_empty() {
                return Some(format!("request {number} was answered without a grant"));
            }
            let answered = u32::try_from(ping.replies.len()).unwrap_or(u32::MAX);
            if is_allowed && !is_lossy && answered != ping.attempts {
                return Some(format!(
                    "of {} packets of request {number}, {answered} were answered though nothing was lost",
                    ping.attempts
                ));
            }
        }

        None
    }

    pub(super) fn first_reply_after(&self) -> Option<Duration> {
        Some(self.first_reply_at? - self.first_sent_at?)
    }

    pub(super) fn replies(&self) -> u32 {
        let all = self.pings.values().map(|ping| ping.replies.len());

        u32::try_from(all.sum::<usize>()).unwrap_or(u32::MAX)
    }

    fn packet(
        &self,
        source: ([u8; 4], u16),
        destination: ([u8; 4], u16),
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let packet = ip::udp(
            &self.pool,
            SocketAddr::from(source),
            SocketAddr::from(destination),
            payload,
        )?;

        Some(packet.bytes().to_vec())
    }
}

fn payload(number: u32, attempt: u32, size: usize) -> Vec<u8> {
    let mut payload = [number.to_be_bytes(), attempt.to_be_bytes()].concat();
    let filler = (0_u8..=250).cycle().take(size - payload.len());
    payload.extend(filler);

    payload
}

fn numbers(payload: &[u8]) -> Option<(u32, u32)> {
    let (number, rest) = payload.split_first_chunk::<4>()?;
    let attempt = rest.first_chunk::<4>()?;

    Some((u32::from_be_bytes(*number), u32::from_be_bytes(*attempt)))
}
