//! TUN: IP packets that the operating system routes to us, and ours to it.

#[cfg(target_os = "linux")]
mod linux;

use std::io;

#[cfg(target_os = "linux")]
pub use linux::TunDevice;

/// A TUN device that never blocks: each read and each write moves one IP packet without any header in front.
///
/// Super-packets (the device's segmentation and checksum offloads, `virtio_net_hdr`) get methods of their own beside
/// these; `read` and `write` stay what they are, for single packets with complete checksums.
pub trait Tun {
    /// The device's name.
    fn name(&self) -> &str;

    /// Reads the next packet to the front of `buf` and returns its length.
    ///
    /// A packet that is longer than `buf` loses its end: give at least the device's MTU.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: nothing waits. Anything else: the device is down or gone.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize>;

    /// Hands `packet` to the operating system as if it had arrived from a wire.
    ///
    /// # Errors
    ///
    /// The packet was not taken. `WouldBlock`: try again when the device is writable. Anything else concerns this packet
    /// (`EINVAL`: not an IP packet) or says that the device is down (`EIO`) or gone.
    fn write(&mut self, packet: &[u8]) -> io::Result<()>;
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
