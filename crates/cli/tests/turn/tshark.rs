//! `tshark` reads what was on a relay's cables, and finds nothing wrong with it.

use std::fs;
use std::path::Path;
use std::process::Command;

use connlib_os::namespace::Namespace;
use connlib_wire::buffer::Pool;
use connlib_wire::ip;

use crate::capture::Capture;
use crate::scene::is_there;

/// A capture file's head: the magic number, version 2.4, times in UTC, whole packets, Ethernet.
const FILE_HEADER: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 0x0004_0000, 1];

/// Of each frame a line of these, with what occurs several times joined by commas.
const FIELDS: [&str; 7] = [
    "frame.number",
    "frame.protocols",
    "udp.port",
    "stun.type",
    "stun.channel",
    "_ws.malformed",
    "_ws.expert.severity",
];

/// The severity of warnings, by its number; that of errors is greater. A wrong fingerprint is but a warning to it.
const WARNING: u32 = 0x0060_0000;

/// Where a relay listens.
const PORT: &str = "3478";

/// Reads along in a relay's place until it is judged.
pub(crate) struct Witness {
    capture: Capture,
}

/// How many of what there were.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) frames: usize,
    pub(crate) messages: usize,
    pub(crate) channel_data: usize,
}

impl Witness {
    pub(crate) fn start(place: &Namespace) -> Self {
        Self {
            capture: Capture::start(place),
        }
    }

    /// Fails if anything that was seen is wrong to the eyes of tshark; `None`, and said so, where there is none.
    pub(crate) fn judge(self, scene: &str) -> Option<Seen> {
        let frames = self.capture.stop();
        if !is_there("tshark", "tshark") {
            return None;
        }
        let seen = judge(&frames).unwrap_or_else(|fault| panic!("{scene}: {fault}"));
        println!(
            "{}: {scene}: {} frames, {} STUN messages, {} channel data, none malformed, no warning",
            version(),
            seen.frames,
            seen.messages,
            seen.channel_data,
        );

        Some(seen)
    }
}

/// Counts what frames hold; an error is the first one that is wrong, as tshark shows it.
fn judge(frames: &[Vec<u8>]) -> Result<Seen, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.pcap");
    fs::write(&file, pcap(frames)).unwrap();
    let fields = FIELDS.map(|field| ["-e", field]).concat();
    let list = tshark(&file, &[&["-T", "fields"], &fields[..]].concat());
    let mut seen = Seen::default();
    for line in list.lines() {
        let columns: Vec<Vec<_>> = line.split('\t').map(items).collect();
        let [
            number,
            protocols,
            ports,
            kinds,
            channels,
            malformed,
            severities,
        ] = &columns[..]
        else {
            panic!("{line:?}");
        };
        seen.frames += 1;
        // An ICMP error quotes as much as it likes. What peers send each other through a relay is theirs unless it is STUN, and
        // TCP to a portal has nothing to do with it.
        let is_error = protocols.iter().any(|stack| stack.contains("icmp"));
        if is_error || (!ports.contains(&PORT) && kinds.is_empty()) {
            continue;
        }
        seen.messages += kinds.len();
        seen.channel_data += channels.len();
        // What is neither to it is shown as mere UDP, without a complaint.
        let is_read = kinds.len() + channels.len() > 0;
        let is_grave = |severity: &&str| severity.parse().is_ok_and(|n: u32| n >= WARNING);
        if !is_read || !malformed.is_empty() || severities.iter().any(is_grave) {
            let only = format!("frame.number == {}", number[0]);
            return Err(tshark(&file, &["-V", "-Y", &only]));
        }
    }
    assert_eq!(seen.frames, frames.len(), "tshark has read all");

    Ok(seen)
}

/// What tshark says about a file.
///
/// The relay's own port is STUN and channel data, whatever else a datagram looks like. On the ports that it lends, checks are known by
/// their cookie. Checksums are left to the network card, which these cables don't have.
fn tshark(file: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("tshark");
    command
        .args(["-n", "-d", "udp.port==3478,stun"])
        .args(["-o", "ip.check_checksum:FALSE"])
        .args(["-o", "udp.check_checksum:FALSE"])
        .arg("-r")
        .arg(file)
        .args(arguments);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn items(column: &str) -> Vec<&str> {
    column.split(',').filter(|item| !item.is_empty()).collect()
}

/// Its first line without the words in brackets.
fn version() -> String {
    let output = Command::new("tshark").arg("--version").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().next().unwrap_or_default();
    let words = line.split(" (Git").next().unwrap_or_default();

    words.to_owned()
}

/// The frames as a file; nobody asks when they came.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file: Vec<u8> = FILE_HEADER.into_iter().flat_map(u32::to_le_bytes).collect();
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap();
        file.extend([0, 0, len, len].into_iter().flat_map(u32::to_le_bytes));
        file.extend(frame);
    }

    file
}

#[test]
fn it_finds_what_is_broken() {
    if !is_there("tshark", "tshark") {
        return;
    }
    // A binding request with a fingerprint, and channel data.
    let mut request = vec![0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42];
    request.extend(*b"abcdefghijkl");
    request.extend([0x80, 0x28, 0, 4, 0x3f, 0x07, 0x24, 0xbd]);
    let data = b"\x40\0\0\x03abc".to_vec();
    let right = judge(&[frame(&request), frame(&data)]);
    let expected = Seen {
        frames: 2,
        messages: 1,
        channel_data: 1,
    };
    assert_eq!(right, Ok(expected));

    for (at, what) in [(27, "fingerprint"), (3, "length"), (4, "cookie")] {
        let mut broken = request.clone();
        broken[at] ^= 1;
        assert!(judge(&[frame(&broken)]).is_err(), "{what}");
    }
    assert!(
        judge(&[frame(&data[..6])]).is_err(),
        "less than the length says"
    );
}

/// A frame that brings a datagram to a relay.
fn frame(datagram: &[u8]) -> Vec<u8> {
    let ends = ("198.51.100.7:50000", "203.0.113.9:3478");
    let (from, to) = (ends.0.parse().unwrap(), ends.1.parse().unwrap());
    let packet = ip::udp(&Pool::new(2_048, 1), from, to, datagram).unwrap();
    let ethernet = [&[0; 12][..], &[8, 0]].concat();

    [&ethernet[..], packet.bytes()].concat()
}
