//! TUN: IP packets that the operating system routes to us, and ours to it.

use std::io;

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
