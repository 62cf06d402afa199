//! What a client has given addresses to, in a file that the next run reads.
//!
//! Programs remember addresses for as long as they run, which is until the machine starts anew at the latest. So the file
//! lies where nothing outlives that, and a line is written at once for each name: a killed client has lost none.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use connlib::client::NameRecord;

/// Where the records go.
#[derive(Debug)]
pub(crate) struct NamesFile {
    path: PathBuf,
    file: Option<File>,
}

/// More than all addresses there are would need.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

impl NamesFile {
    /// Opens the file at `path`, and returns what is in it. A line that makes no sense costs itself alone; without a file
    /// nothing is kept, which is told.
    pub(crate) fn open(path: PathBuf) -> (Self, Vec<NameRecord>) {
        let records = read(&path);
        if let Some(directory) = path.parent() {
            // Whether it is there shows when the file is opened.
            drop(std::fs::create_dir_all(directory));
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .inspect_err(|error| {
                tracing::info!(%error, file = %path.display(), "A restart will give names other addresses");
            });

        (
            Self {
                path,
                file: file.ok(),
            },
            records,
        )
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
        if let Err(error) = file.write_all(lines.collect::<String>().as_bytes()) {
            tracing::info!(%error, file = %self.path.display(), "A restart will give some names other addresses");
            self.file = None;
        }
    }
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
        let (_, after) = NamesFile::open(path);
        assert_eq!(after, [1, 2, 3, 4].map(record));
    }

    #[test]
    fn without_a_place_for_it_nothing_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, records) = NamesFile::open(directory.path().to_owned());
        assert!(records.is_empty());
        file.keep(&[record(1)]);
    }
}
