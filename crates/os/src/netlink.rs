//! Interfaces, addresses, routes and policy rules, set and watched by netlink: no other program is needed.

mod address;
mod error;
mod route;
mod watch;

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use tokio::runtime;

use crate::namespace::{Namespace, run_in};

pub use error::NetlinkError;
pub use route::{MAIN_TABLE, RouteKind, RouteSpec, RuleSpec, SourceRuleSpec};
pub use watch::{Watch, WatchSettings};

/// A connection to the network configuration of one namespace.
///
/// Its methods take it mutably because requests must not overlap: the kernel answers a second listing on the same socket
/// with EBUSY.
#[derive(Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
}

/// What the queue of an interface may hold.
///
/// Streams that begin on this machine are cut to these limits beforehand. A larger super-packet of another origin (a UDP
/// train, a stream that is forwarded) comes apart into single packets, not into smaller super-packets (measured).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QueueLimits {
    /// The packets, or super-packets, that wait at most.
    pub packets: u32,
    /// The bytes of one super-packet at most, headers included.
    pub gso_bytes: u32,
    /// The segments of one super-packet at most.
    pub gso_segments: u32,
}

/// The IP versions that a change was made for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Families {
    /// It was made for IPv4.
    pub v4: bool,
    /// It was made for IPv6. Not, if the machine or the interface has no IPv6.
    pub v6: bool,
}

impl Netlink {
    /// Connects to the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoRuntime`] outside of a tokio runtime. The runtime must have its I/O and time drivers enabled.
    pub fn new() -> Result<Self, NetlinkError> {
        runtime::Handle::try_current().map_err(|_| NetlinkError::NoRuntime)?;
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| NetlinkError::from_os("open a netlink socket", source))?;
        // It ends when the last handle is gone.
        tokio::spawn(connection);

        Ok(Self { handle })
    }

    /// Connects to another namespace.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), or that namespace can't be entered.
    pub fn new_in(namespace: &Namespace) -> Result<Self, NetlinkError> {
        let runtime = runtime::Handle::try_current().map_err(|_| NetlinkError::NoRuntime)?;

        run_in(namespace, || {
            let _context = runtime.enter();
            Self::new()
        })?
    }

    /// The number of the interface `name`.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchInterface`].
    pub async fn link_index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        self.find_link(name)
            .await?
            .map(|link| link.header.index)
            .ok_or_else(|| NetlinkError::NoSuchInterface { name: name.into() })
    }

    /// Sets the largest packet that the interface carries, in bytes.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchInterface`], or the interface can't have that MTU.
    pub async fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        self.change_link(name, "set the MTU", |link| link.mtu(mtu))
            .await
    }

    /// Brings the interface up, and lets it [settle](Self::settle) if it has a carrier.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchInterface`].
    pub async fn set_up(&mut self, name: &str) -> Result<(), NetlinkError> {
        self.change_link(name, "bring up", |link| link.up()).await?;
        let link = self.find_link(name).await?;
        if !link.is_some_and(|link| link.header.flags.contains(LinkFlags::LowerUp)) {
            return Ok(());
        }

        match self.settle(name).await {
            Err(error @ NetlinkError::NotReady { .. }) => {
                tracing::debug!(%error, "an interface is up and not ready");
                Ok(())
            }
            result => result,
        }
    }

    /// Sets how many packets the interface's own queue holds.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchInterface`].
    pub async fn set_tx_queue_len(&mut self, name: &str, packets: u32) -> Result<(), NetlinkError> {
        self.change_link(name, "set the queue length", |link| {
            link.txqueuelen(packets)
        })
        .await
    }

    /// Sets how much the interface's own queue holds, and how large a super-packet may be that it is handed.
    ///
    /// Each limit is a wish: one that the kernel refuses stays as it was and is logged.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchInterface`], or the connection has ended.
    pub async fn set_queue(&mut self, name: &str, limits: QueueLimits) -> Result<(), NetlinkError> {
        let index = self.link_index(name).await?;
        let QueueLimits {
            packets,
            gso_bytes,
            gso_segments,
        } = limits;

        // One by one, because a message takes effect up to what is refused in it. IPv4 has a limit of its own since
        // Linux 6.3.
        for limit in [
            LinkAttribute::TxQueueLen(packets),
            LinkAttribute::GsoMaxSize(gso_bytes),
            LinkAttribute::GsoIpv4MaxSize(gso_bytes),
            LinkAttribute::GsoMaxSegs(gso_segments),
        ] {
            let message = LinkUnspec::new_with_index(index)
                .append_extra_attribute(limit.clone())
                .build();
            match self.handle.link().change(message).execute().await {
                Ok(()) => {}
                Err(error) if error::errno(&error) == Some(libc::ENODEV) => {
                    return Err(NetlinkError::NoSuchInterface { name: name.into() });
                }
                Err(error) if error::errno(&error).is_some() => {
                    tracing::debug!(name, ?limit, %error, "the kernel refuses a limit of a queue");
                }
                Err(error) => {
                    let action = format!("set the limits of the queue of {name}");
                    return Err(NetlinkError::from_reply(action, error));
                }
            }
        }

        Ok(())
    }

    /// Creates two Ethernet interfaces with a cable between them.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NameTaken`] if there is an interface of either name.
    pub async fn add_veth(&mut self, a: &str, b: &str) -> Result<(), NetlinkError> {
        let pair = LinkVeth::new(a, b).build();

        match self.handle.link().add(pair).execute().await {
            Err(error) if error::errno(&error) == Some(libc::EEXIST) => {
                Err(NetlinkError::NameTaken {
                    name: format!("{a} or {b}"),
                })
            }
            result => result.map_err(|error| {
                NetlinkError::from_reply(format!("create the interfaces {a} and {b}"), error)
            }),
        }
    }

    /// Moves an interface into another namespace, where it is down and has no addresses.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchInterface`], or there is an interface of that name in the other namespace.
    pub async fn move_to_namespace(
        &mut self,
        name: &str,
        namespace: &Namespace,
    ) -> Result<(), NetlinkError> {
        let fd = namespace.as_fd().as_raw_fd();

        self.change_link(name, "move to another namespace", |link| {
            link.setns_by_fd(fd)
        })
        .await
    }

    /// Removes an interface, and the other one of its pair; one that doesn't exist is no error.
    ///
    /// # Errors
    ///
    /// It is of a kind that can't be removed.
    pub async fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let Some(link) = self.find_link(name).await? else {
            return Ok(());
        };

        match self.handle.link().del(link.header.index).execute().await {
            Err(error) if error::errno(&error) == Some(libc::ENODEV) => Ok(()),
            result => result.map_err(|error| {
                NetlinkError::from_reply(format!("remove the interface {name}"), error)
            }),
        }
    }

    async fn change_link(
        &mut self,
        name: &str,
        action: &str,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), NetlinkError> {
        let index = self.link_index(name).await?;
        let message = change(LinkUnspec::new_with_index(index)).build();

        self.handle
            .link()
            .change(message)
            .execute()
            .await
            .map_err(|error| NetlinkError::from_reply(format!("{action} ({name})"), error))
    }

    async fn find_link(&mut self, name: &str) -> Result<Option<LinkMessage>, NetlinkError> {
        // The kernel answers a longer name as if it were malformed.
        if name.len() >= libc::IFNAMSIZ {
            return Ok(None);
        }
        let mut links = Box::pin(self.handle.link().get().match_name(name).execute());
        let mut found = None;
        loop {
            match links.try_next().await {
                Ok(Some(link)) => found = Some(link),
                Ok(None) => return Ok(found),
                Err(error) if error::errno(&error) == Some(libc::ENODEV) => return Ok(None),
                Err(error) => {
                    let action = format!("look up the interface {name}");
                    return Err(NetlinkError::from_reply(action, error));
                }
            }
        }
    }
}

/// Whether an error means that the machine, or the interface, has no IPv6.
fn means_no_ipv6(errno: Option<i32>) -> bool {
    // EACCES is what an interface with the parameter `disable_ipv6` answers; missing rights are EPERM.
    matches!(
        errno,
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EACCES)
    )
}

impl NetlinkError {
    fn from_os(action: impl Into<String>, source: io::Error) -> Self {
        let action = action.into();
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Self::PermissionDenied { action };
        }

        Self::Os { action, source }
    }

    fn from_reply(action: impl Into<String>, error: rtnetlink::Error) -> Self {
        match error::errno(&error) {
            // EACCES has other meanings in replies: it is an answer, not a refusal to listen.
            Some(libc::EPERM) => Self::PermissionDenied {
                action: action.into(),
            },
            Some(errno) => Self::Os {
                action: action.into(),
                source: io::Error::from_raw_os_error(errno),
            },
            None => Self::Broken {
                action: action.into(),
                source: Box::new(error),
            },
        }
    }
}
