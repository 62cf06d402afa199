//! What can go wrong with netlink.

use std::error::Error;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::namespace::NamespaceError;

/// Why the network configuration was not read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// There is no tokio runtime to wait with.
    #[error("netlink needs a tokio runtime with I/O and time; call it from inside of one")]
    NoRuntime,
    /// This process may not change the network.
    #[error(
        "can't {action}: not permitted; run as root or grant the right with \
         `setcap cap_net_admin+ep` on the program"
    )]
    PermissionDenied {
        /// What was tried.
        action: String,
    },
    /// There is no interface of that name.
    #[error("there is no network interface {name}; see `/sys/class/net` for those there are")]
    NoSuchInterface {
        /// Its name.
        name: String,
    },
    /// There is an interface of that name already.
    #[error("there is a network interface {name} already; remove it or choose another name")]
    NameTaken {
        /// Its name.
        name: String,
    },
    /// IPv6 was all that was asked for, and there is none.
    #[error("the network interface {name} has no IPv6; enable it or use an IPv4 address")]
    NoIpv6 {
        /// Its name.
        name: String,
    },
    /// The interface's IPv6 addresses are not in use yet.
    #[error(
        "the IPv6 addresses of {name} are not ready; bring it and the other end of its cable up"
    )]
    NotReady {
        /// Its name.
        name: String,
    },
    /// A route of one IP version can't lead by a router of the other.
    #[error("{dst} can't be routed via {via}; use a router of the same IP version")]
    MixedFamilies {
        /// Where the route leads.
        dst: IpNet,
        /// The router.
        via: IpAddr,
    },
    /// The other namespace was not entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel refused for another reason.
    #[error("can't {action}: {source}; look into the kernel's log")]
    Os {
        /// What was tried.
        action: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel's answer was not understood, or the connection has ended.
    #[error("can't {action}: the netlink connection failed ({source}); connect anew")]
    Broken {
        /// What was tried.
        action: String,
        /// What happened.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// The error number of a reply.
pub(super) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    let rtnetlink::Error::NetlinkError(reply) = error else {
        return None;
    };

    Some(reply.raw_code().saturating_abs())
}
