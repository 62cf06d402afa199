//! The two sockets of a node, one per IP version.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use connlib_os::poll::{Interest, Poller, Token};
use connlib_os::udp::{UdpConfig, UdpError, UdpSocket};
use connlib_wire::stun::Family;

use super::DataPlaneError;
use crate::event_loop::Watched;

/// Large enough to lose nothing while the loop is at another source (limits.md, lesson 3).
const BUFFERS: (usize, usize) = (2 * 1024 * 1024, 8 * 1024 * 1024);

/// How a node's sockets are bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sockets {
    /// The port to try first; any other will do (io.md C1).
    pub(crate) port: u16,
    /// What keeps their traffic out of our own tunnel.
    pub(crate) mark: Option<u32>,
}

/// The sockets that there are.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) v4: Option<Watched<UdpSocket>>,
    pub(super) v6: Option<Watched<UdpSocket>>,
}

impl Pair {
    /// Binds both. A machine may lack one IP version, not both.
    pub(super) fn bind(sockets: Sockets, poller: &Poller) -> Result<Self, DataPlaneError> {
        let v4 = bind(sockets, Family::V4, poller);
        let v6 = bind(sockets, Family::V6, poller);
        match (v4, v6) {
            (Err(error), Err(_)) => Err(error),
            (v4, v6) => Ok(Self {
                v4: v4.inspect_err(missing).ok(),
                v6: v6.inspect_err(missing).ok(),
            }),
        }
    }

    pub(super) fn get(&mut self, family: Family) -> Option<&mut Watched<UdpSocket>> {
        match family {
            Family::V4 => self.v4.as_mut(),
            Family::V6 => self.v6.as_mut(),
        }
    }

    /// Replaces one socket that no longer works.
    pub(super) fn rebind(&mut self, sockets: Sockets, family: Family, poller: &Poller) {
        let slot = match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        };
        // The old one first, or it would still hold the port.
        *slot = None;
        *slot = bind(sockets, family, poller).inspect_err(missing).ok();
    }
}

pub(super) fn token(family: Family) -> Token {
    match family {
        Family::V4 => Token(1),
        Family::V6 => Token(2),
    }
}

fn bind(
    sockets: Sockets,
    family: Family,
    poller: &Poller,
) -> Result<Watched<UdpSocket>, DataPlaneError> {
    let addr = match family {
        Family::V4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, sockets.port)),
        Family::V6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, sockets.port)),
    };
    let (send, recv) = BUFFERS;
    let mut config = UdpConfig::new(addr).with_buffers(send, recv);
    if let Some(mark) = sockets.mark {
        config = config.with_mark(mark);
    }
    let socket = UdpSocket::bind_preferred(&config)?;
    poller
        .register(&socket, token(family), Interest::ReadWrite)
        .map_err(DataPlaneError::Os)?;

    Ok(Watched::new(socket))
}

fn missing(error: &DataPlaneError) {
    match error {
        DataPlaneError::Udp(
            UdpError::FamilyUnsupported { .. } | UdpError::AddrNotAvailable { .. },
        ) => {
            tracing::debug!(%error, "Going on with one IP version");
        }
        DataPlaneError::Udp(_) | DataPlaneError::Os(_) => {
            tracing::warn!(%error, "Going on with one IP version");
        }
    }
}
