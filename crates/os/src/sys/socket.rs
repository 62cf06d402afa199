//! Sockets, their options and addresses.

use std::ffi::CString;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_int, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};

use super::{check, own};

/// Creates a UDP socket that doesn't block and doesn't outlive an exec.
pub(crate) fn udp(family: c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

    // SAFETY: takes no pointers, and a new descriptor belongs to us.
    unsafe { own(libc::socket(family, kind, 0)) }
}

/// The number of the interface `name` in the namespace of the calling thread.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the pointer is to a string with its zero that lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };

    (index != 0).then_some(index)
}

/// Sets an option whose value is an int.
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: c_int,
) -> io::Result<()> {
    // SAFETY: the pointer is to an int that lives through the call, and the length is that of an int.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<c_int>() as socklen_t,
        )
    };

    check(result).map(drop)
}

/// Reads an option whose value is an int.
pub(crate) fn option(fd: BorrowedFd<'_>, level: c_int, option: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    // SAFETY: both pointers are to variables that live through the call, and `len` is the size of the first.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };

    check(result).map(|_| value)
}

/// Reads what the kernel counts about a socket's memory: the first nine of its figures, `SK_MEMINFO_…`.
pub(crate) fn memory(fd: BorrowedFd<'_>) -> io::Result<[u32; SK_MEMINFO_VARS]> {
    // The number of all architectures but PA-RISC; libc lacks it.
    const SO_MEMINFO: c_int = 55;
    let mut figures = [0; SK_MEMINFO_VARS];
    let mut len = size_of_val(&figures) as socklen_t;
    // SAFETY: both pointers are to variables that live through the call, and `len` is the size of the first.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            figures.as_mut_ptr().cast(),
            &raw mut len,
        )
    };

    check(result).map(|_| figures)
}

const SK_MEMINFO_VARS: usize = 9;

/// Binds a socket to an address.
pub(crate) fn bind(fd: BorrowedFd<'_>, addr: SocketAddr) -> io::Result<()> {
    let name = Name::from(addr);
    // SAFETY: the pointer is to an address that lives through the call, and the length is the address'.
    let result = unsafe { libc::bind(fd.as_raw_fd(), name.as_ptr(), name.len()) };

    check(result).map(drop)
}

/// The address a socket is bound to.
pub(crate) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let mut storage = empty_storage();
    let mut len = size_of::<sockaddr_storage>() as socklen_t;
    // SAFETY: both pointers are to variables that live through the call, and `len` is the size of the first.
    let result = unsafe {
        libc::getsockname(
            fd.as_raw_fd(),
            (&raw mut storage).cast::<sockaddr>(),
            &raw mut len,
        )
    };
    check(result)?;

    address(&storage).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// A socket address in the kernel's form.
pub(super) enum Name {
    V4(sockaddr_in),
    V6(sockaddr_in6),
}

impl Name {
    pub(super) fn as_ptr(&self) -> *const sockaddr {
        match self {
            Self::V4(name) => (&raw const *name).cast(),
            Self::V6(name) => (&raw const *name).cast(),
        }
    }

    pub(super) fn len(&self) -> socklen_t {
        match self {
            Self::V4(name) => size_of_val(name) as socklen_t,
            Self::V6(name) => size_of_val(name) as socklen_t,
        }
    }
}

impl From<SocketAddr> for Name {
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(addr) => Self::V4(sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: in_addr(*addr.ip()),
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(addr) => Self::V6(sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: addr.flowinfo(),
                sin6_addr: in6_addr(*addr.ip()),
                sin6_scope_id: addr.scope_id(),
            }),
        }
    }
}

pub(super) fn in_addr(ip: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from_ne_bytes(ip.octets()),
    }
}

pub(super) fn in6_addr(ip: Ipv6Addr) -> libc::in6_addr {
    libc::in6_addr {
        s6_addr: ip.octets(),
    }
}

pub(super) fn ipv4(addr: libc::in_addr) -> IpAddr {
    Ipv4Addr::from(addr.s_addr.to_ne_bytes()).into()
}

pub(super) fn ipv6(addr: libc::in6_addr) -> IpAddr {
    Ipv6Addr::from(addr.s6_addr).into()
}

pub(super) fn empty_storage() -> sockaddr_storage {
    // SAFETY: it consists of integers, for which zero is a value.
    unsafe { mem::zeroed() }
}

/// Reads an address that the kernel has written; `None` if it is of neither family.
pub(super) fn address(storage: &sockaddr_storage) -> Option<SocketAddr> {
    let storage = &raw const *storage;

    // SAFETY: `sockaddr_storage` is larger than either and aligned for both, and each consists of integers, so whatever
    // the bytes are they are a value of it.
    unsafe {
        match c_int::from((*storage).ss_family) {
            libc::AF_INET => {
                let name = &*storage.cast::<sockaddr_in>();
                let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
            }
            libc::AF_INET6 => {
                let name = &*storage.cast::<sockaddr_in6>();
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                // The flow label says nothing about who sent it, and would make equal senders differ.
                Some(
                    SocketAddrV6::new(ip, u16::from_be(name.sin6_port), 0, name.sin6_scope_id)
                        .into(),
                )
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn addresses_survive_the_way_through_the_kernel() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let addr = addr.parse::<SocketAddr>().unwrap();
            let family = if addr.is_ipv4() {
                libc::AF_INET
            } else {
                libc::AF_INET6
            };
            let socket = udp(family).unwrap();

            bind(socket.as_fd(), addr).unwrap();
            let bound = local_addr(socket.as_fd()).unwrap();

            assert_eq!(bound.ip(), addr.ip());
            assert_ne!(bound.port(), 0);
        }
    }

    #[test]
    fn options_are_set_and_read() {
        let socket = udp(libc::AF_INET).unwrap();

        set_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_TTL, 7).unwrap();

        let ttl = option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_TTL);
        assert_eq!(ttl.unwrap(), 7);
    }
}
