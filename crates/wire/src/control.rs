//! What client and gateway tell each other inside the tunnel (gateway.md §9).
//!
//! A message is an IPv6 packet from `::` to `::` with next header 255: no real packet looks like that.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::buffer::{Buffer, Pool};
use crate::id::ResourceId;
use crate::ip::{Packet, Transport, protocol};

const HEADER_LEN: usize = 48;

/// An in-tunnel message.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Control {
    /// Client to gateway: these addresses stand for a name.
    AssignedIps(AssignedIps),
    /// Gateway to client: whether those addresses work.
    DomainStatus(DomainStatus),
    /// The sender forgets the link; the next packet starts over.
    Goodbye,
}

/// These addresses stand for a name.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AssignedIps {
    /// The resource the name belongs to.
    pub resource: ResourceId,
    /// The name, without the trailing dot.
    pub domain: String,
    /// The addresses the client gave out for it.
    pub proxy_ips: Vec<IpAddr>,
}

/// Whether a name's addresses work.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DomainStatus {
    /// The resource the name belongs to.
    pub resource: ResourceId,
    /// The name, without the trailing dot.
    pub domain: String,
    /// Whether packets to them will be translated.
    pub status: NatStatus,
}

/// Whether a name's translation is set up.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum NatStatus {
    /// It is.
    Active,
    /// It is not; any word this version doesn't know means the same.
    #[serde(other)]
    Inactive,
}

/// Why a control packet was not understood. It is dropped; senders repeat what matters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// A type this version doesn't know.
    #[error("unknown control event {0}")]
    UnknownType(u8),
    /// The JSON is not that of its type.
    #[error("malformed control event {kind}: {source}")]
    Malformed {
        /// The event's type.
        kind: u8,
        /// What serde found.
        #[source]
        source: serde_json::Error,
    },
}

impl Control {
    /// Understands a control packet; `None` if `packet` is an ordinary one.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Option<Result<Self, ControlError>> {
        let unspecified = packet.source().is_unspecified() && packet.destination().is_unspecified();
        if packet.transport() != Transport::Other(protocol::RESERVED) || !unspecified {
            return None;
        }
        let ([kind, ..], payload) = packet.transport_bytes().split_first_chunk::<8>()?;

        Some(match kind {
            0 => decode(*kind, payload).map(Self::AssignedIps),
            1 => decode(*kind, payload).map(Self::DomainStatus),
            2 => Ok(Self::Goodbye),
            kind => Err(ControlError::UnknownType(*kind)),
        })
    }

    /// Writes the packet; `None` if it is larger than a tunnel carries, or has other than four or eight addresses for a name:
    /// gateways take no others (client.md §7).
    pub fn to_packet(&self, pool: &Pool) -> Option<Packet<Buffer>> {
        let (kind, payload) = match self {
            Self::AssignedIps(event) => {
                if ![4, 8].contains(&event.proxy_ips.len()) {
                    return None;
                }
                (0, serde_json::to_vec(event).ok()?)
            }
            Self::DomainStatus(event) => (1, serde_json::to_vec(event).ok()?),
            Self::Goodbye => (2, Vec::new()),
        };
        let mut buffer = pool.take(0);
        let header = buffer.extend(HEADER_LEN)?;
        header.fill(0);
        let [l0, l1] = u16::try_from(payload.len() + 8).ok()?.to_be_bytes();
        header
            .get_mut(..8)?
            .copy_from_slice(&[0x60, 0, 0, 0, l0, l1, protocol::RESERVED, 0]);
        *header.get_mut(40)? = kind;
        buffer.extend(payload.len())?.copy_from_slice(&payload);

        Packet::parse(buffer).ok()
    }
}

fn decode<'a, T: Deserialize<'a>>(kind: u8, payload: &'a [u8]) -> Result<T, ControlError> {
    serde_json::from_slice(payload).map_err(|source| ControlError::Malformed { kind, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource() -> ResourceId {
        "8f3b2c1a-0d4e-4f5a-9b6c-7d8e9fa0b1c2".parse().unwrap()
    }

    fn written(control: &Control) -> Vec<u8> {
        control
            .to_packet(&Pool::new(2_048, 1))
            .unwrap()
            .bytes()
            .to_vec()
    }

    fn read(bytes: &[u8]) -> Control {
        Control::parse(&Packet::parse(bytes).unwrap())
            .unwrap()
            .unwrap()
    }

    #[test]
    fn goodbye_is_forty_eight_bytes() {
        let mut expected = vec![0x60, 0, 0, 0, 0, 8, 0xff, 0];
        expected.extend_from_slice(&[0; 32]);
        expected.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);

        assert_eq!(written(&Control::Goodbye), expected); // gateway.md V1
        assert_eq!(read(&expected), Control::Goodbye);
    }

    #[test]
    fn domain_status_is_written_as_the_vector_has_it() {
        let status = Control::DomainStatus(DomainStatus {
            resource: resource(),
            domain: "db.corp.example".into(),
            status: NatStatus::Active,
        });
        let bytes = written(&status);
        let json = r#"{"resource":"8f3b2c1a-0d4e-4f5a-9b6c-7d8e9fa0b1c2","domain":"db.corp.example","status":"Active"}"#;

        assert_eq!(bytes.len(), 144); // V2
        assert_eq!(bytes[..8], [0x60, 0, 0, 0, 0, 0x68, 0xff, 0]);
        assert_eq!(&bytes[48..], json.as_bytes());
        assert_eq!(read(&bytes), status);
    }

    #[test]
    fn assigned_ips_is_as_long_as_the_vector() {
        let proxy_ips = ["100.96.0.1", "100.96.0.2", "100.96.0.3", "100.96.0.4"]
            .into_iter()
            .chain(["fd00:2021:1111:8000::", "fd00:2021:1111:8000::1"])
            .chain(["fd00:2021:1111:8000::2", "fd00:2021:1111:8000::3"]);
        let assigned = Control::AssignedIps(AssignedIps {
            resource: resource(),
            domain: "db.corp.example".into(),
            proxy_ips: proxy_ips.map(|ip| ip.parse().unwrap()).collect(),
        });

        let bytes = written(&assigned);
        assert_eq!(bytes[4..6], [0x00, 0xFB]); // V3
        assert_eq!(read(&bytes), assigned);
    }

    #[test]
    fn the_longest_name_fits_and_five_addresses_are_refused() {
        let domain = format!("{}com", format!("{}.", "a".repeat(49)).repeat(5));
        let loopback = ["127.0.0.1"; 4].into_iter().chain(["::1"; 4]);
        let mut assigned = AssignedIps {
            resource: resource(),
            domain,
            proxy_ips: loopback.map(|ip| ip.parse().unwrap()).collect(),
        };
        assert_eq!(assigned.domain.len(), 253);
        let bytes = written(&Control::AssignedIps(assigned.clone()));
        assert_eq!(bytes.len() - 48, 402); // V5

        for count in [7, 5, 3, 0] {
            assigned.proxy_ips.truncate(count);
            let packet = Control::AssignedIps(assigned.clone()).to_packet(&Pool::new(2_048, 1));
            assert!(packet.is_none(), "{count}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_or_no_control_packet_at_all() {
        let with_payload = |kind: u8, payload: &[u8]| {
            let mut bytes = written(&Control::Goodbye);
            bytes[40] = kind;
            bytes.extend_from_slice(payload);
            bytes[4..6].copy_from_slice(&(8 + payload.len() as u16).to_be_bytes());
            bytes
        };
        let id = resource();
        for payload in [
            String::new(),
            "{}".to_owned(),
            "[]".to_owned(),
            "\u{0}".to_owned(),
            format!(r#"{{"resource":"{id}","domain":"x"}}"#),
            format!(r#"{{"resource":"{id}","domain":7,"proxy_ips":[]}}"#),
            r#"{"resource":"no id","domain":"x","proxy_ips":[]}"#.to_owned(),
            format!(r#"{{"resource":"{id}","domain":"x","proxy_ips":["not an address"]}}"#),
            format!(r#"{{"resource":"{id}","domain":"x","proxy_ips":["100.96.0.1"]"#),
        ] {
            let bytes = with_payload(0, payload.as_bytes());
            let parsed = Control::parse(&Packet::parse(&bytes).unwrap());
            assert!(
                matches!(parsed, Some(Err(ControlError::Malformed { kind: 0, .. }))),
                "{payload}"
            );
        }
        let utf8 = with_payload(1, b"{\"resource\":\"\xff\"}");
        let parsed = Control::parse(&Packet::parse(&utf8).unwrap());
        assert!(matches!(
            parsed,
            Some(Err(ControlError::Malformed { kind: 1, .. }))
        ));

        // Too short for an event, from somewhere, or with another header.
        let mut short = written(&Control::Goodbye);
        short.truncate(47);
        short[5] = 7;
        let mut from = written(&Control::Goodbye);
        from[23] = 1;
        let mut other = written(&Control::Goodbye);
        other[6] = 254;
        for bytes in [short, from, other] {
            assert!(Control::parse(&Packet::parse(&bytes).unwrap()).is_none());
        }
        // Any number of addresses is understood, and unknown fields are.
        let one = format!(r#"{{"new":1,"proxy_ips":["::1"],"domain":"x","resource":"{id}"}}"#);
        assert!(matches!(
            read(&with_payload(0, one.as_bytes())),
            Control::AssignedIps(_)
        ));
    }

    #[test]
    fn an_unknown_status_means_inactive_and_an_unknown_event_is_told() {
        let text = format!(
            r#"{{"resource":"{}","domain":"x","status":"paused","new":1}}"#,
            resource()
        );
        let status: DomainStatus = serde_json::from_str(&text).unwrap();
        assert_eq!(status.status, NatStatus::Inactive); // V4

        let mut bytes = written(&Control::Goodbye);
        bytes[40] = 9;
        let parsed = Control::parse(&Packet::parse(&bytes).unwrap());
        assert!(matches!(parsed, Some(Err(ControlError::UnknownType(9)))));
    }
}
