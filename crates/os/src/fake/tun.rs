//! A TUN device in memory.

use std::collections::VecDeque;
use std::io;

use super::faults::Faults;
use crate::tun::Tun;

/// A TUN device in memory, for simulations and tests.
#[derive(Debug)]
pub struct FakeTun {
    /// The packets that the host has sent and that were not read yet, oldest first.
    pub inbox: VecDeque<Vec<u8>>,
    /// The packets that were written to the host, oldest first. They count against the limit until they are taken out.
    pub outbox: VecDeque<Vec<u8>>,
    name: String,
    read_faults: Faults,
    write_faults: Faults,
    limit: usize,
}

impl FakeTun {
    /// Creates a device of that name, without faults or limits.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            name: name.into(),
            read_faults: Faults::default(),
            write_faults: Faults::default(),
            limit: usize::MAX,
        }
    }

    /// Lets the read after the next `reads` ones fail with `error`; zero means the next one.
    pub fn fail_read(&mut self, reads: u64, error: io::Error) {
        self.read_faults.plan(reads, error);
    }

    /// Lets the write after the next `writes` ones fail with `error`; zero means the next one.
    pub fn fail_write(&mut self, writes: u64, error: io::Error) {
        self.write_faults.plan(writes, error);
    }

    /// Lets writes take packets only while fewer than `packets` lie in [`outbox`](Self::outbox).
    pub fn limit_outbox(&mut self, packets: usize) {
        self.limit = packets;
    }
}

impl Tun for FakeTun {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_faults.check()?;
        let Some(packet) = self.inbox.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        // Like the kernel, which cuts a packet that doesn't fit and says nothing.
        let len = packet.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), packet.get(..len)) {
            to.copy_from_slice(from);
        }

        Ok(len)
    }

    fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        self.write_faults.check()?;
        if !matches!(packet.first().map(|byte| byte >> 4), Some(4 | 6)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.outbox.len() >= self.limit {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.outbox.push_back(packet.to_vec());

        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_and_go_in_order() {
        let mut tun = FakeTun::new("tun0");
        tun.inbox.extend([vec![0x45, 1], vec![0x60, 2]]);
        let mut buf = [0; 8];

        let read = tun.read(&mut buf).unwrap();
        assert_eq!(buf.get(..read).unwrap(), [0x45, 1]);
        let read = tun.read(&mut buf).unwrap();
        assert_eq!(buf.get(..read).unwrap(), [0x60, 2]);
        let blocked = tun.read(&mut buf).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);

        tun.write(&[0x45, 3]).unwrap();
        tun.write(&[0x60, 4]).unwrap();
        assert_eq!(tun.outbox, [[0x45, 3], [0x60, 4]]);
    }

    #[test]
    fn a_packet_longer_than_the_buffer_loses_its_end() {
        let mut tun = FakeTun::new("tun0");
        tun.inbox.push_back(vec![0x45, 1, 2, 3]);
        let mut buf = [0; 2];

        assert_eq!(tun.read(&mut buf).unwrap(), 2);
        assert_eq!(buf, [0x45, 1]);
        assert!(tun.inbox.is_empty());
    }

    #[test]
    fn a_full_outbox_blocks_and_garbage_is_refused() {
        let mut tun = FakeTun::new("tun0");
        tun.limit_outbox(1);

        let refused = tun.write(&[0x00]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        tun.write(&[0x45]).unwrap();
        let blocked = tun.write(&[0x45]).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);

        tun.outbox.pop_front();
        tun.write(&[0x45]).unwrap();
    }

    #[test]
    fn planned_faults_hit_the_call_they_are_planned_for() {
        let mut tun = FakeTun::new("tun0");
        tun.inbox.push_back(vec![0x45]);
        tun.fail_read(0, io::ErrorKind::NotConnected.into());
        tun.fail_write(1, io::ErrorKind::NotConnected.into());
        let mut buf = [0; 8];

        assert!(tun.read(&mut buf).is_err());
        assert_eq!(tun.read(&mut buf).unwrap(), 1, "the packet is still there");

        assert!(tun.write(&[0x45]).is_ok());
        assert!(tun.write(&[0x45]).is_err());
        assert!(tun.write(&[0x45]).is_ok());
    }
}
