//! A TUN device in memory.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use connlib_wire::offload::VirtioHeader;

use super::faults::Faults;
use super::joined;
use crate::tun::{Joins, MAX_PARTS, Tun};

/// A TUN device in memory, for simulations and tests.
#[derive(Debug)]
pub struct FakeTun {
    /// The packets and super-packets that the host has sent and that were not read yet, oldest first.
    pub inbox: VecDeque<(VirtioHeader, Vec<u8>)>,
    /// The packets and runs that were written to the host, each in one piece, oldest first. They count against the limit
    /// until they are taken out.
    pub outbox: VecDeque<(VirtioHeader, Vec<u8>)>,
    name: String,
    joins: Joins,
    read_faults: Faults,
    write_faults: Faults,
    limit: usize,
    refuses_runs: bool,
    is_gone: bool,
}

impl FakeTun {
    /// Creates a device of that name that takes all runs, without faults or limits.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            name: name.into(),
            joins: Joins {
                tcp: true,
                udp: true,
            },
            read_faults: Faults::default(),
            write_faults: Faults::default(),
            limit: usize::MAX,
            refuses_runs: false,
            is_gone: false,
        }
    }

    /// Lets the host send a single packet whose checksums are complete.
    pub fn push_packet(&mut self, packet: Vec<u8>) {
        self.inbox.push_back((VirtioHeader::default(), packet));
    }

    /// Changes the runs that the device says it takes; others are refused from now on.
    pub fn set_joins(&mut self, joins: Joins) {
        self.joins = joins;
    }

    /// Lets the read after the next `reads` ones fail with `error`; zero means the next one.
    pub fn fail_read(&mut self, reads: u64, error: io::Error) {
        self.read_faults.plan(reads, error);
    }

    /// Lets the write after the next `writes` ones fail with `error`; zero means the next one.
    pub fn fail_write(&mut self, writes: u64, error: io::Error) {
        self.write_faults.plan(writes, error);
    }

    /// Lets the next `reads` ones be answered with `WouldBlock`, whatever waits.
    pub fn storm_read(&mut self, reads: u64) {
        self.read_faults.storm(reads);
    }

    /// Lets the next `writes` ones be answered with `WouldBlock`, whatever room there is.
    pub fn storm_write(&mut self, writes: u64) {
        self.write_faults.storm(writes);
    }

    /// Lets writes take packets, or runs, only while fewer than `packets` lie in [`outbox`](Self::outbox).
    pub fn limit_outbox(&mut self, packets: usize) {
        self.limit = packets;
    }

    /// Answers each run from now on with `InvalidInput`, although the device says that it takes it.
    pub fn refuse_runs(&mut self) {
        self.refuses_runs = true;
    }

    /// Answers each call from now on as the device does when its interface was removed.
    pub fn vanish(&mut self) {
        self.is_gone = true;
    }

    fn check_presence(&self) -> io::Result<()> {
        if self.is_gone {
            return Err(io::Error::from_raw_os_error(EBADFD));
        }

        Ok(())
    }
}

/// What Linux answers about a device whose interface was removed.
const EBADFD: i32 = 77;

impl Tun for FakeTun {
    fn name(&self) -> &str {
        &self.name
    }

    fn joins(&self) -> Joins {
        self.joins
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<(VirtioHeader, usize)> {
        self.check_presence()?;
        self.read_faults.check()?;
        let Some((header, packet)) = self.inbox.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        // Like the kernel, which cuts a packet that doesn't fit and says nothing.
        let len = packet.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), packet.get(..len)) {
            to.copy_from_slice(from);
        }

        Ok((header, len))
    }

    fn write(&mut self, header: VirtioHeader, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.check_presence()?;
        self.write_faults.check()?;
        let is_run = header.gso_kind() != VirtioHeader::GSO_NONE;
        let first = parts.iter().find_map(|part| part.first());
        if !self.joins.takes(&header)
            || (is_run && (self.refuses_runs || header.gso_size == 0))
            || parts.len() > MAX_PARTS
            || !matches!(first.map(|byte| byte >> 4), Some(4 | 6))
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.outbox.len() >= self.limit {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.outbox.push_back((header, joined(parts)));

        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: VirtioHeader = VirtioHeader {
        flags: VirtioHeader::NEEDS_CSUM,
        gso_type: VirtioHeader::GSO_UDP_L4,
        hdr_len: 28,
        gso_size: 2,
        csum_start: 20,
        csum_offset: 6,
    };

    #[test]
    fn packets_and_runs_come_and_go_in_order() {
        let mut tun = FakeTun::new("tun0");
        tun.push_packet(vec![0x45, 1]);
        tun.inbox.push_back((RUN, vec![0x60, 2, 3]));

        assert_eq!(read(&mut tun).unwrap(), (SINGLE, vec![0x45, 1]));
        assert_eq!(read(&mut tun).unwrap(), (RUN, vec![0x60, 2, 3]));
        let blocked = read(&mut tun).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);

        tun.write(SINGLE, &[IoSlice::new(&[0x45, 3])]).unwrap();
        let parts = [&[][..], &[0x60], &[4, 5], &[6]].map(IoSlice::new);
        tun.write(RUN, &parts).unwrap();
        assert_eq!(
            tun.outbox,
            [(SINGLE, vec![0x45, 3]), (RUN, vec![0x60, 4, 5, 6])]
        );
    }

    #[test]
    fn a_packet_longer_than_the_buffer_loses_its_end() {
        let mut tun = FakeTun::new("tun0");
        tun.push_packet(vec![0x45, 1, 2, 3]);
        let mut buf = [0; 2];

        assert_eq!(tun.read(&mut buf).unwrap(), (SINGLE, 2));
        assert_eq!(buf, [0x45, 1]);
        assert!(tun.inbox.is_empty());
    }

    #[test]
    fn a_full_outbox_blocks_and_garbage_is_refused() {
        let mut tun = FakeTun::new("tun0");
        tun.limit_outbox(1);
        let endless = RUN_WITHOUT_SIZE;

        for (header, packet) in [(SINGLE, &[0x00][..]), (SINGLE, &[]), (endless, &[0x45])] {
            let refused = tun.write(header, &[IoSlice::new(packet)]).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        }
        write(&mut tun, SINGLE).unwrap();
        let blocked = write(&mut tun, SINGLE).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);

        tun.outbox.pop_front();
        write(&mut tun, SINGLE).unwrap();
    }

    #[test]
    fn runs_are_refused_by_what_a_device_says_or_in_spite_of_it() {
        let mut tun = FakeTun::new("tun0");
        write(&mut tun, RUN).unwrap();

        tun.refuse_runs();
        let refused = write(&mut tun, RUN).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert!(tun.joins().udp);
        write(&mut tun, SINGLE).unwrap();

        let mut tun = FakeTun::new("tun0");
        tun.set_joins(Joins {
            tcp: true,
            udp: false,
        });
        let refused = write(&mut tun, RUN).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn planned_faults_hit_the_call_they_are_planned_for() {
        let mut tun = FakeTun::new("tun0");
        tun.push_packet(vec![0x45]);
        tun.fail_read(0, io::ErrorKind::NotConnected.into());
        tun.fail_write(1, io::ErrorKind::NotConnected.into());

        assert!(read(&mut tun).is_err());
        assert!(read(&mut tun).is_ok(), "the packet is still there");

        assert!(write(&mut tun, SINGLE).is_ok());
        assert!(write(&mut tun, SINGLE).is_err());
        assert!(write(&mut tun, SINGLE).is_ok());
    }

    #[test]
    fn a_storm_blocks_as_many_calls_as_it_has_and_loses_nothing() {
        let mut tun = FakeTun::new("tun0");
        tun.push_packet(vec![0x45]);
        tun.storm_read(2);
        tun.storm_write(1);

        for _ in 0..2 {
            let blocked = read(&mut tun).unwrap_err();
            assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
        }
        assert!(read(&mut tun).is_ok());
        assert!(write(&mut tun, SINGLE).is_err());
        assert!(write(&mut tun, SINGLE).is_ok());
    }

    #[test]
    fn a_vanished_device_answers_as_linux_does() {
        let mut tun = FakeTun::new("tun0");
        tun.push_packet(vec![0x45]);
        tun.vanish();

        for _ in 0..2 {
            let gone = read(&mut tun).unwrap_err();
            assert_eq!(gone.raw_os_error(), Some(EBADFD));
            let gone = write(&mut tun, SINGLE).unwrap_err();
            assert_eq!(gone.raw_os_error(), Some(EBADFD));
        }
    }

    const SINGLE: VirtioHeader = VirtioHeader {
        flags: 0,
        gso_type: VirtioHeader::GSO_NONE,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };
    const RUN_WITHOUT_SIZE: VirtioHeader = VirtioHeader { gso_size: 0, ..RUN };

    fn read(tun: &mut FakeTun) -> io::Result<(VirtioHeader, Vec<u8>)> {
        let mut buf = vec![0; 8];
        let (header, len) = tun.read(&mut buf)?;
        buf.truncate(len);

        Ok((header, buf))
    }

    fn write(tun: &mut FakeTun, header: VirtioHeader) -> io::Result<()> {
        tun.write(header, &[IoSlice::new(&[0x45])])
    }
}
