//! Notice of changes, by the kernel's multicast groups.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::AsyncSocket as _;
use tokio::runtime;
use tokio::time::{Instant, timeout_at};

use super::error::{NetlinkError, errno};
use crate::namespace::{Namespace, run_in};
use crate::network::{Network, Way};

/// Watches the network of one namespace.
pub struct Watch {
    handle: rtnetlink::Handle,
    notices: Pin<Box<dyn Stream<Item = Notice> + Send>>,
    settings: WatchSettings,
    /// The one that is being waited for.
    burst: Option<Burst>,
}

type Notice = NetlinkPayload<RouteNetlinkMessage>;

/// What a [`Watch`] looks at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WatchSettings {
    /// The number of an interface whose changes don't count: our own.
    pub except: Option<u32>,
    /// The firewall mark of the packets whose ways are asked for.
    pub mark: Option<u32>,
}

/// When it began, and when its latest notice came.
#[derive(Clone, Copy, Debug)]
struct Burst {
    began_at: Instant,
    latest_at: Instant,
}

/// Without another notice for that long a burst is over. A cable that is moved makes a dozen of them within a few
/// milliseconds.
const QUIET: Duration = Duration::from_millis(30);

/// A burst isn't waited for any longer: people wait for what it means.
const MAX_BURST: Duration = Duration::from_millis(150);

/// What the kernel keeps for us, in bytes: a few thousand notices.
const BUFFER: usize = 1024 * 1024;

const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

impl Watch {
    /// Watches the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoRuntime`] outside of a tokio runtime. The runtime must have its I/O and time drivers enabled.
    pub fn new(settings: WatchSettings) -> Result<Self, NetlinkError> {
        runtime::Handle::try_current().map_err(|_| NetlinkError::NoRuntime)?;
        let (mut connection, handle, notices) = rtnetlink::new_multicast_connection(&GROUPS)
            .map_err(|source| NetlinkError::from_os("watch the network", source))?;
        let socket = connection.socket_mut().socket_mut();
        if let Err(error) = socket.set_rx_buf_sz(BUFFER) {
            tracing::debug!(%error, "a large burst of changes may be cut short");
        }
        // It ends when the last handle is gone.
        tokio::spawn(connection);

        Ok(Self {
            handle,
            notices: Box::pin(notices.map(|(message, _)| message.payload)),
            settings,
            burst: None,
        })
    }

    /// Watches another namespace.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), or that namespace can't be entered.
    pub fn new_in(namespace: &Namespace, settings: WatchSettings) -> Result<Self, NetlinkError> {
        let runtime = runtime::Handle::try_current().map_err(|_| NetlinkError::NoRuntime)?;

        run_in(namespace, || {
            let _context = runtime.enter();
            Self::new(settings)
        })?
    }

    /// Waits for the next notice that counts, and returns when it came.
    async fn notice(&mut self) -> Result<Instant, NetlinkError> {
        while let Some(notice) = self.notices.next().await {
            if counts(&notice, self.settings.except) {
                return Ok(Instant::now());
            }
        }

        Err(NetlinkError::Broken {
            action: "watch the network".into(),
            source: "it has ended".into(),
        })
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("settings", &self.settings)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

impl Network for Watch {
    type Error = NetlinkError;

    async fn changed(&mut self) -> Result<(), NetlinkError> {
        let mut burst = match self.burst {
            Some(burst) => burst,
            None => {
                let at = self.notice().await?;
                let burst = Burst {
                    began_at: at,
                    latest_at: at,
                };
                *self.burst.insert(burst)
            }
        };
        loop {
            let over_at = (burst.latest_at + QUIET).min(burst.began_at + MAX_BURST);
            let Ok(notice) = timeout_at(over_at, self.notice()).await else {
                self.burst = None;
                return Ok(());
            };
            burst.latest_at = notice?;
            self.burst = Some(burst);
        }
    }

    async fn way_to(&mut self, destination: IpAddr) -> Result<Option<Way>, NetlinkError> {
        let request = question(destination, self.settings.mark);
        let mut answers = Box::pin(self.handle.route().get(request).execute());

        match answers.try_next().await {
            Ok(answer) => Ok(answer.as_ref().and_then(way)),
            Err(error) if means_no_way(errno(&error)) => Ok(None),
            Err(error) => {
                let action = format!("ask for the way to {destination}");
                Err(NetlinkError::from_reply(action, error))
            }
        }
    }
}

/// Whether a notice may be about more than the interface `except`. What isn't understood may be about anything.
fn counts(notice: &Notice, except: Option<u32>) -> bool {
    let NetlinkPayload::InnerMessage(message) = notice else {
        return true;
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the groups bring these kinds alone"
    )]
    let interface = match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            Some(link.header.index)
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            Some(address.header.index)
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            interface_of(route)
        }
        _ => None,
    };

    interface.is_none() || interface != except
}

fn question(destination: IpAddr, mark: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    (
        message.header.address_family,
        message.header.destination_prefix_length,
    ) = match destination {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    let destination = RouteAttribute::Destination(destination.into());
    message.attributes = [Some(destination), mark.map(RouteAttribute::Mark)]
        .into_iter()
        .flatten()
        .collect();

    message
}

/// The way that an answer describes, if packets get anywhere by it.
fn way(answer: &RouteMessage) -> Option<Way> {
    if !matches!(
        answer.header.kind,
        RouteType::Unicast | RouteType::Local | RouteType::Broadcast
    ) {
        return None;
    }
    let source = answer.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::PrefSource(address) = attribute {
            ip(address)
        } else {
            None
        }
    })?;
    let router = answer.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Gateway(address) = attribute {
            ip(address)
        } else {
            None
        }
    });
    // From an address that is only good on the link nothing comes back from anywhere else.
    let is_of_the_link = matches!(source, IpAddr::V6(source) if source.is_unicast_link_local());
    if is_of_the_link && router.is_some() {
        return None;
    }

    Some(Way {
        source,
        interface: interface_of(answer)?,
        router,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        RouteAddress::Mpls(_) | RouteAddress::Other(_) | _ => None,
    }
}

fn interface_of(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Oif(index) = attribute {
            Some(*index)
        } else {
            None
        }
    })
}

/// Whether an error means that there is no way to where was asked for: no route, one that refuses, or no such IP version.
fn means_no_way(errno: Option<i32>) -> bool {
    matches!(
        errno,
        Some(
            libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::EADDRNOTAVAIL
                | libc::EACCES
                | libc::EINVAL
                | libc::EOPNOTSUPP
                | libc::EAFNOSUPPORT
                | libc::ENODEV
        )
    )
}
