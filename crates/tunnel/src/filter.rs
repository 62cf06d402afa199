//! What may pass to a resource (gateway.md §5).

use connlib_wire::ip::{Packet, Transport};
use connlib_wire::portal::resource::{Filter, PortRange};

/// Which end of a packet is the resource's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ResourceEnd {
    Source,
    Destination,
}

/// Whether `filters` let `packet` pass. None at all let everything pass; once there is one, only what is named.
pub(crate) fn permits<T: AsRef<[u8]>>(
    filters: &[Filter],
    packet: &Packet<T>,
    end: ResourceEnd,
) -> bool {
    let port = match end {
        ResourceEnd::Source => packet.source_port(),
        ResourceEnd::Destination => packet.destination_port(),
    };

    permits_port(filters, packet.transport(), port)
}

/// Whether `filters` let a transport pass, to the resource's port if it has ports.
pub(crate) fn permits_port(filters: &[Filter], transport: Transport, port: Option<u16>) -> bool {
    if filters.is_empty() {
        return true;
    }
    let in_range = |range: &PortRange| {
        port.is_some_and(|port| (range.port_range_start..=range.port_range_end).contains(&port))
    };

    filters.iter().any(|filter| match (filter, transport) {
        (Filter::Icmp, Transport::Icmp) => true,
        (Filter::Tcp(range), Transport::Tcp) | (Filter::Udp(range), Transport::Udp) => {
            in_range(range)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use connlib_wire::buffer::Pool;
    use connlib_wire::ip::udp;

    use super::*;

    #[test]
    fn ports_are_the_resources_and_ranges_include_both_ends() {
        let range = |first, last| PortRange {
            port_range_start: first,
            port_range_end: last,
        };
        let to = |port: u16| {
            let (source, destination) = ([10, 0, 0, 1], [10, 0, 0, 2]);
            udp(
                &Pool::new(2_048, 1),
                (source, 9).into(),
                (destination, port).into(),
                b"x",
            )
            .unwrap()
        };
        let filters = [Filter::Udp(range(53, 60)), Filter::Tcp(range(80, 80))];
        let permits = |port| permits(&filters, &to(port), ResourceEnd::Destination);

        assert!(permits(53) && permits(60));
        assert!(!permits(52) && !permits(61) && !permits(80));
        assert!(super::permits(&[], &to(1), ResourceEnd::Destination));
        assert!(!super::permits(
            &[Filter::Icmp],
            &to(1),
            ResourceEnd::Destination
        ));
        assert!(
            !super::permits(&filters, &to(53), ResourceEnd::Source),
            "the source port is 9"
        );
    }

    #[test]
    fn what_can_not_be_met_lets_nothing_pass() {
        let reversed = PortRange {
            port_range_start: 60,
            port_range_end: 53,
        };
        for filters in [
            [Filter::Unknown].as_slice(),
            &[Filter::Udp(reversed), Filter::Tcp(reversed)],
        ] {
            for transport in [
                Transport::Udp,
                Transport::Tcp,
                Transport::Icmp,
                Transport::Other(132),
            ] {
                for port in [None, Some(0), Some(53), Some(56), Some(60), Some(u16::MAX)] {
                    assert!(!permits_port(filters, transport, port), "{filters:?}");
                }
            }
        }
    }
}
