//! TUN: IP packets that the operating system routes to us, and ours to it, one by one or in joined runs.

#[cfg(target_os = "linux")]
mod linux;

use std::io::{self, IoSlice};

use connlib_wire::offload::VirtioHeader;

#[cfg(target_os = "linux")]
pub use linux::TunDevice;

/// The most parts that one [`Tun::write`] takes.
pub const MAX_PARTS: usize = 200;

/// A TUN device that never blocks: each read and each write moves one IP packet, or one *super-packet*: a run of packets
/// of one flow under a single header, to be cut where the header of [`offload`](connlib_wire::offload) says.
///
/// A device without such headers looks the same: its packets come with the default one, and it takes no runs.
pub trait Tun {
    /// The device's name.
    fn name(&self) -> &str;

    /// Which joined runs the device takes.
    fn joins(&self) -> Joins;

    /// Reads the next packet, or super-packet, to the front of `buf`; returns what the device says about it, and its
    /// length.
    ///
    /// One that is longer than `buf` loses its end: give 65,535 bytes, which every one fits into. What the header says
    /// is the kernel's word and not checked here.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: nothing waits. `InvalidData`: less than a header came. Anything else: the device is down or gone
    /// (`EBADFD`).
    fn read(&mut self, buf: &mut [u8]) -> io::Result<(VirtioHeader, usize)>;

    /// Hands the operating system one packet, or run, as if it had arrived from a wire. It consists of `parts`, one
    /// behind the other; there may be [`MAX_PARTS`] of them.
    ///
    /// # Errors
    ///
    /// Nothing was taken. `WouldBlock`: try again when the device is writable. Anything else concerns this packet
    /// (`InvalidInput`: not an IP packet, a header that doesn't fit it, too many parts, or a run that is not among what
    /// the device [joins](Self::joins)) or says that the device is down (`EIO`) or gone (`EBADFD`).
    fn write(&mut self, header: VirtioHeader, parts: &[IoSlice<'_>]) -> io::Result<()>;
}

/// The joined runs that a device takes in one write.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Joins {
    /// Segments of TCP.
    pub tcp: bool,
    /// Datagrams of UDP.
    pub udp: bool,
}

impl Joins {
    /// Whether what `header` describes is among them; a single packet always is.
    pub const fn takes(self, header: &VirtioHeader) -> bool {
        match header.gso_kind() {
            VirtioHeader::GSO_NONE => true,
            VirtioHeader::GSO_TCPV4 | VirtioHeader::GSO_TCPV6 => self.tcp,
            VirtioHeader::GSO_UDP_L4 => self.udp,
            _ => false,
        }
    }
}

/// Why there is no TUN device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunError {
    /// This process may not make network interfaces.
    #[error(
        "can't create the TUN device {name}: not permitted; run as root or grant the right with \
         `setcap cap_net_admin+ep` on the program"
    )]
    PermissionDenied {
        /// The name that was asked for.
        name: String,
    },
    /// Another process holds the device of that name.
    #[error(
        "can't create the TUN device {name}: another process holds it; stop that one or choose another name"
    )]
    Busy {
        /// The name that was asked for.
        name: String,
    },
    /// There is an interface of that name, and it is not a TUN device.
    #[error(
        "can't create the TUN device {name}: another kind of interface has that name; remove it or choose another name"
    )]
    NameTaken {
        /// The name that was asked for.
        name: String,
    },
    /// No interface can have that name.
    #[error(
        "{name:?} can't name a TUN device; use 1 to 15 characters without `/`, `:`, `%` and white space"
    )]
    InvalidName {
        /// The name that was asked for.
        name: String,
    },
    /// The kernel has no TUN devices.
    #[error(
        "this machine has no TUN devices; load the driver with `modprobe tun` or give the container /dev/net/tun"
    )]
    Missing {
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel refused for another reason.
    #[error("can't create the TUN device {name}: {source}; look into the kernel's log")]
    Os {
        /// The name that was asked for.
        name: String,
        /// What the kernel answered.
        source: io::Error,
    },
}
