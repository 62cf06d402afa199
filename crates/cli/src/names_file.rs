//! What a client has given addresses to, in a file that the next run reads.
//!
//! Programs remember addresses for as long as they run, which is until the machine starts anew at the latest. So the file
//! lies where nothing outlives that, and a line is written for each name as soon as its addresses are given out: a killed
//! client has lost those of its last moment at most.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use connlib::client::NameRecord;

/// Where the records go.
#[derive(Debug)]
pub(crate) struct NamesFile {
    path: PathBuf,
    /// `None` once nothing is kept any more.
    file: Option<File>,
    len: u64,
}

/// How long the file may get, in bytes: tens of thousands of names. It lies in memory, as `/run` does.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

impl NamesFile {
    /// Opens the file at `path`, and returns what is in it. A line that makes no sense costs itself alone; without a file
    /// nothing is kept, which is told.
    pub(crate) fn open(path: PathBuf) -> (Self, Vec<NameRecord>) {
        let records = read(&path);
        if let Some(directory) = path.parent() {
            // Whether it is there shows when the file is opened.
            drop(std::fs::create_dir_all(directory));
        }
        let opened = open(&path).inspect_err(|error| {
            tracing::info!(%error, file = %path.display(), "A restart will give names other addresses");
        });
        let (file, len) = opened.map_or((None, 0), |(file, len)| (Some(file), len));

        (Self { path, file, len }, records)
    }

    /// Writes down more of them.
    pub(crate) fn keep(&mut self, records: &[NameRecord]) {
        let Some(file) = &mut self.file else {
            return;
        };
        let lines = records.iter().filter_map(|record| {
            let mut line = serde_json::to_string(record).ok()?;
            line.push('\n');
            Some(line)
        });
        let lines = lines.collect::<String>();
        self.len = self
            .len
            .saturating_add(lines.len().try_into().unwrap_or(u64::MAX));
        let written = if self.len > MAX_BYTES {
            Err(io::Error::other(format!(
                "it would get longer than {MAX_BYTES} bytes"
            )))
        } else {
            file.write_all(lines.as_bytes())
        };
        if let Err(error) = written {
            tracing::info!(%error, file = %self.path.display(), "A restart will give some names other addresses");
            self.file = None;
        }
    }
}

/// Opens a file to append lines to it, and returns its length.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let mut len = file.seek(SeekFrom::End(0))?;
    if len > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        // What a crash has cut off must not swallow what follows.
        if last != *b"\n" {
            file.write_all(b"\n")?;
            len += 1;
        }
    }

    Ok((file, len))
}

fn read(path: &Path) -> Vec<NameRecord> {
    let Ok(file) = File::open(path) else {
        return Vec::new();
    };
    let lines = BufReader::new(file.take(MAX_BYTES)).split(b'\n');
    let record = |line: Vec<u8>| serde_json::from_slice(&line).ok();

    lines.map_while(Result::ok).filter_map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u8) -> NameRecord {
        NameRecord {
            domain: format!("n{number}.corp.test"),
            ips: vec![[100, 96, 0, number].into(), "fd00::1".parse().unwrap()],
        }
    }

    #[test]
    fn records_come_back_and_a_bad_line_costs_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deeper").join("client.names");
        let (mut file, before) = NamesFile::open(path.clone());
        assert!(before.is_empty());
        file.keep(&[record(1), record(2)]);
        file.keep(&[record(3)]);

        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"{\"domain\":7}\n\xff\xfe\n");
        bytes.extend(serde_json::to_vec(&record(4)).unwrap());
        // As a crash in the middle of a write leaves it.
        bytes.extend(b"\n{\"domain\":\"n5.corp");
        std::fs::write(&path, bytes).unwrap();
        let (mut file, after) = NamesFile::open(path.clone());
        assert_eq!(after, [1, 2, 3, 4].map(record));

        file.keep(&[record(6)]);
        let (_, after) = NamesFile::open(path);
        assert_eq!(after, [1, 2, 3, 4, 6].map(record));
    }

    #[test]
    fn a_file_that_is_full_grows_no_further() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.names");
        let (mut file, _) = NamesFile::open(path.clone());
        file.keep(&[record(1)]);
        let line = std::fs::read(&path).unwrap();
        let len = || std::fs::metadata(&path).unwrap().len();
        // Room for one more line behind one that makes no sense.
        let full = MAX_BYTES - line.len() as u64;
        file.file.as_ref().unwrap().set_len(full - 1).unwrap();

        let (mut file, records) = NamesFile::open(path.clone());
        assert_eq!(records, [record(1)]);
        for _ in 0..3 {
            file.keep(&[record(2)]);
            assert_eq!(len(), MAX_BYTES);
        }
        let (_, records) = NamesFile::open(path.clone());
        assert_eq!(records, [1, 2].map(record));
    }

    #[test]
    fn without_a_place_for_it_nothing_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, records) = NamesFile::open(directory.path().to_owned());
        assert!(records.is_empty());
        file.keep(&[record(1)]);
    }
}
