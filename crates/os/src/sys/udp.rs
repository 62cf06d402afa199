//! `sendmmsg` and `recvmmsg` with the control messages that trains need.

use std::io::{self, IoSlice};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use connlib_wire::ecn::Ecn;
use connlib_wire::train::Route;
use libc::{c_int, c_void, iovec, mmsghdr, msghdr, sockaddr_storage};

use super::check_len;
use super::socket::{Name, address, empty_storage, in_addr, in6_addr, ipv4, ipv6};
use super::time::duration;
use crate::udp::MAX_TRAINS;

/// A train, or a part of one, that leaves with one header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) payload: Parts<'a>,
    pub(crate) route: Route,
    /// The size of the datagrams; `None` for a single one.
    pub(crate) segment: Option<u16>,
}

/// The bytes of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parts<'a> {
    One(IoSlice<'a>),
    Many(&'a [IoSlice<'a>]),
}

/// Sends the first `N` messages, in order, each as a whole, and returns the number of those that have left.
///
/// The error is the first one's; what stops a later one isn't told.
pub(crate) fn send<'a, const N: usize>(
    fd: BorrowedFd<'_>,
    messages: impl Iterator<Item = Message<'a>>,
) -> io::Result<usize> {
    let mut parts = [Parts::One(IoSlice::new(&[])); N];
    let mut names = [const { None::<Name> }; N];
    let mut controls = [const { SendControl([0; SEND_CONTROL]) }; N];
    let mut headers = [const { empty_mmsghdr() }; N];
    let mut count = 0;
    let rooms = parts.iter_mut().zip(&mut names).zip(&mut controls);
    for ((((parts, name), control), header), message) in rooms.zip(&mut headers).zip(messages) {
        *parts = message.payload;
        let name = name.insert(Name::from(message.route.dst));
        let header = &mut header.msg_hdr;
        header.msg_name = name.as_ptr().cast_mut().cast();
        header.msg_namelen = name.len();
        // An IoSlice is an iovec, as its documentation says.
        match parts {
            Parts::One(part) => {
                header.msg_iov = ptr::from_mut(part).cast();
                header.msg_iovlen = 1;
            }
            Parts::Many(parts) => {
                header.msg_iov = parts.as_ptr().cast_mut().cast();
                header.msg_iovlen = parts.len() as _;
            }
        }
        write_control(header, control, &message);
        count += 1;
    }

    // SAFETY: every pointer in the first `count` headers is to something that lives through the call, with the length
    // beside it; the call writes to nothing but the headers.
    let sent = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT as _,
        )
    };

    check_len(sent as isize)
}

fn write_control(header: &mut msghdr, control: &mut SendControl, message: &Message<'_>) {
    let Route { src, dst, ecn } = message.route;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;

    let mut writer = ControlWriter::new(header);
    if let Some(segment) = message.segment {
        writer.push(libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    if ecn != Ecn::NotEct {
        let bits = c_int::from(ecn.bits());
        match dst {
            SocketAddr::V4(_) => writer.push(libc::IPPROTO_IP, libc::IP_TOS, bits),
            SocketAddr::V6(_) => writer.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, bits),
        }
    }
    match src {
        Some(SocketAddr::V4(src)) => {
            let source = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr(*src.ip()),
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            writer.push(libc::IPPROTO_IP, libc::IP_PKTINFO, source);
        }
        Some(SocketAddr::V6(src)) => {
            let source = libc::in6_pktinfo {
                ipi6_addr: in6_addr(*src.ip()),
                ipi6_ifindex: src.scope_id() as _,
            };
            writer.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, source);
        }
        None => {}
    }
    let used = writer.finish();
    header.msg_controllen = used as _;
    if used == 0 {
        header.msg_control = ptr::null_mut();
    }
}

/// What the kernel says about a received train.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// The number of bytes received.
    pub(crate) len: usize,
    /// The sender.
    pub(crate) from: Option<SocketAddr>,
    /// The address it was sent to, and the index of the interface it came by.
    pub(crate) to: Option<(IpAddr, u32)>,
    /// The outer header's mark.
    pub(crate) ecn: Ecn,
    /// The size of the datagrams; `None` for a single one.
    pub(crate) stride: Option<usize>,
    /// When it came in, as what has passed since 1970.
    pub(crate) came_at: Option<Duration>,
    /// Whether bytes or control messages were lost for want of room.
    pub(crate) truncated: bool,
}

/// The room that the kernel needs for addresses and control messages, reused from call to call.
pub(crate) struct Scratch {
    names: Box<[sockaddr_storage]>,
    controls: Box<[Control]>,
    received: Vec<Received>,
}

impl Scratch {
    /// Room for `trains` at a time.
    pub(crate) fn new(trains: usize) -> Self {
        Self {
            names: vec![empty_storage(); trains].into_boxed_slice(),
            controls: vec![Control::new(); trains].into_boxed_slice(),
            received: Vec::with_capacity(trains),
        }
    }
}

/// Receives trains into the first of the `slots`, one into each, and says of each what it is.
pub(crate) fn recv<'a, 's>(
    fd: BorrowedFd<'_>,
    slots: impl Iterator<Item = &'a mut [u8]>,
    scratch: &'s mut Scratch,
) -> io::Result<&'s [Received]> {
    let Scratch {
        names,
        controls,
        received: trains,
    } = scratch;
    trains.clear();
    let mut iovs = [EMPTY_IOVEC; MAX_TRAINS];
    let mut messages = [const { empty_mmsghdr() }; MAX_TRAINS];
    let mut count = 0;
    let rooms = names.iter_mut().zip(controls.iter_mut());
    for (((message, iov), (name, control)), slot) in
        messages.iter_mut().zip(&mut iovs).zip(rooms).zip(slots)
    {
        iov.iov_base = slot.as_mut_ptr().cast();
        iov.iov_len = slot.len();
        let header = &mut message.msg_hdr;
        header.msg_name = (&raw mut *name).cast();
        header.msg_namelen = size_of_val(name) as _;
        header.msg_iov = &raw mut *iov;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len() as _;
        count += 1;
    }

    // SAFETY: the first `count` messages point to memory, address and control room of their own that live through the
    // call, with their lengths; there is no timeout to point to.
    let received = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT as _,
            ptr::null_mut(),
        )
    };
    let received = check_len(received as isize)?;

    for (message, name) in messages.iter().zip(names.iter()).take(received) {
        let mut train = Received {
            len: message.msg_len as usize,
            from: address(name),
            to: None,
            ecn: Ecn::NotEct,
            stride: None,
            came_at: None,
            truncated: message.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        };
        // SAFETY: the kernel has filled this message, and its control room lives in `controls`.
        unsafe { read_control(&message.msg_hdr, &mut train) };
        trains.push(train);
    }

    Ok(trains)
}

/// Room for the control messages of a train that is sent: 88 bytes if it has all of them.
const SEND_CONTROL: usize = 96;

#[repr(C, align(8))]
struct SendControl([u8; SEND_CONTROL]);

/// Room for control messages that come. Those of a train need 88 bytes; systems that add time stamps and the like need more, and
/// what doesn't fit is lost, the ECN mark first.
#[derive(Clone)]
#[repr(C, align(8))]
struct Control([u8; 256]);

impl Control {
    const fn new() -> Self {
        Self([0; 256])
    }
}

/// Appends control messages to a message.
struct ControlWriter<'a> {
    message: &'a msghdr,
    next: *mut libc::cmsghdr,
    used: usize,
}

impl<'a> ControlWriter<'a> {
    /// The message's control room must be zeroed and alive.
    fn new(message: &'a mut msghdr) -> Self {
        Self {
            // SAFETY: the message has control room of the length it says.
            next: unsafe { libc::CMSG_FIRSTHDR(message) },
            message,
            used: 0,
        }
    }

    fn push<T: Copy>(&mut self, level: c_int, kind: c_int, value: T) {
        if self.next.is_null() {
            debug_assert!(false, "the control room is large enough for all we send");
            return;
        }
        let size = size_of::<T>() as u32;
        // SAFETY: `next` is what CMSG_FIRSTHDR or CMSG_NXTHDR returned, so there is room for a header behind it. The
        // room is 96 bytes and all the messages of a train need 88, so there is room for the value, too.
        unsafe {
            (*self.next).cmsg_level = level;
            (*self.next).cmsg_type = kind;
            (*self.next).cmsg_len = libc::CMSG_LEN(size) as _;
            ptr::write_unaligned(libc::CMSG_DATA(self.next).cast::<T>(), value);
            self.used += libc::CMSG_SPACE(size) as usize;
            self.next = libc::CMSG_NXTHDR(self.message, self.next);
        }
    }

    fn finish(self) -> usize {
        self.used
    }
}

/// Reads what the kernel says about a train.
///
/// # Safety
///
/// `header` must be as the kernel has left it, and its control room must be alive.
unsafe fn read_control(header: &msghdr, train: &mut Received) {
    // SAFETY: the caller says that the kernel wrote the header and the room behind it.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: the macros only return messages that lie in the control room whole.
        let (level, kind, data) = unsafe {
            (
                (*message).cmsg_level,
                (*message).cmsg_type,
                libc::CMSG_DATA(message).cast_const(),
            )
        };
        // SAFETY: the kernel's messages of each kind have the type that is read, at any alignment.
        unsafe {
            match (level, kind) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    train.stride = usize::try_from(read::<c_int>(data)).ok();
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    train.came_at = Some(duration(read::<libc::timespec>(data)));
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => train.ecn = Ecn::from_bits(read::<u8>(data)),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    train.ecn = Ecn::from_bits((read::<c_int>(data) & 0xff) as u8);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let to = read::<libc::in_pktinfo>(data);
                    train.to = Some((ipv4(to.ipi_addr), to.ipi_ifindex as u32));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let to = read::<libc::in6_pktinfo>(data);
                    train.to = Some((ipv6(to.ipi6_addr), to.ipi6_ifindex));
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
}

/// # Safety
///
/// `data` must be readable for the size of `T`, and the bytes a value of it.
unsafe fn read<T: Copy>(data: *const u8) -> T {
    // SAFETY: as the caller says.
    unsafe { ptr::read_unaligned(data.cast::<T>()) }
}

const EMPTY_IOVEC: iovec = iovec {
    iov_base: ptr::null_mut::<c_void>(),
    iov_len: 0,
};

const fn empty_mmsghdr() -> mmsghdr {
    // SAFETY: it consists of integers and raw pointers, for which zero is a value.
    unsafe { mem::zeroed() }
}
