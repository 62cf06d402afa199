//! Control by `/etc/resolv.conf` itself.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::error::ResolverError;
use super::resolv_conf::ResolvConf;
use super::text::{Author, ours, without_ours};
use super::{Resolvers, Wanted, directory_of};

/// A file that says which resolvers to ask, with the copy of what somebody else wrote into it.
///
/// It is rewritten in place: in a container it is often a mount of its own, which can't be replaced.
#[derive(Debug)]
pub(super) struct ResolvConfFile {
    path: PathBuf,
    backup: PathBuf,
    firezones_backup: PathBuf,
    /// What was written last and has not been taken back.
    written: Option<Vec<u8>>,
    /// Locked as long as the text in the file may be ours. The kernel unlocks it when this process ends, however that
    /// happens.
    claim: Option<File>,
}

/// One text for another.
#[derive(Debug)]
struct Change {
    from: Vec<u8>,
    to: Vec<u8>,
}

/// How often a change is prepared while somebody else writes.
const MAX_TRIES: usize = 8;

/// How many layers of text by programs like us may lie upon each other.
const MAX_LAYERS: usize = 4;

impl ResolvConfFile {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.into(),
            backup: with_suffix(path, ".before-connlib"),
            firezones_backup: with_suffix(path, ".before-firezone"),
            written: None,
            claim: None,
        }
    }

    /// Whether the file could be taken charge of.
    pub(super) fn check(&self) -> Result<(), ResolverError> {
        self.open()?;
        let temporary = self.temporary();
        self.create(&temporary)?;

        fs::remove_file(&temporary).map_err(ResolverError::file("remove", &temporary))
    }

    /// Restores what was there before a run that didn't clean up. Whatever isn't ours stays, and what belongs to a run that
    /// hasn't ended.
    pub(super) fn recover(&mut self) -> Result<(), ResolverError> {
        // Where there is nothing to restore, no file is made for the claim.
        if self.left_over()?.is_none() {
            return Ok(());
        }
        let recovered = match self.claim() {
            Err(ResolverError::InUse { path }) => {
                tracing::debug!(file = %path.display(), "Another client has charge of the resolver settings");
                return Ok(());
            }
            Err(error) => Err(error),
            Ok(()) => self.restore_layers(),
        };
        self.drop_idle_claim();

        recovered
    }

    fn restore_layers(&self) -> Result<(), ResolverError> {
        for _ in 0..MAX_LAYERS {
            let Some((contents, backup)) = self.left_over()? else {
                break;
            };
            self.restore(&contents, backup)?;
            tracing::info!(file = %self.path.display(), "Restored what an earlier run had left changed");
        }

        Ok(())
    }

    /// A text by a program like us, and the backup of what it replaced.
    fn left_over(&self) -> Result<Option<(Vec<u8>, &Path)>, ResolverError> {
        let contents = match self.read() {
            Ok(contents) => contents,
            // We never write to those.
            Err(
                ResolverError::Missing { .. }
                | ResolverError::Symlink { .. }
                | ResolverError::NotAFile { .. },
            ) => return Ok(None),
            Err(error) => return Err(error),
        };

        Ok(match Author::of(&contents) {
            Author::Us => Some((contents, &self.backup)),
            Author::Firezone => Some((contents, &self.firezones_backup)),
            Author::Somebody => None,
        })
    }

    /// Makes sure that no other run has charge of the file.
    fn claim(&mut self) -> Result<(), ResolverError> {
        if self.claim.is_some() {
            return Ok(());
        }
        // A file of its own: the others are replaced now and then, and whoever may read them could lock them.
        let path = with_suffix(&self.backup, ".lock");
        let failed = ResolverError::file("lock", &path);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path);
        let file = match file {
            Ok(file) => file,
            Err(error) => return Err(failed(error)),
        };
        match file.try_lock() {
            Ok(()) => self.claim = Some(file),
            Err(TryLockError::WouldBlock) => {
                return Err(ResolverError::InUse {
                    path: self.path.clone(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }

        Ok(())
    }

    /// Lets others have the file once nothing in it is ours.
    fn drop_idle_claim(&mut self) {
        if self.written.is_none() {
            self.claim = None;
        }
    }

    /// What the file would say without us.
    pub(super) fn system(&self) -> Result<Resolvers, ResolverError> {
        let contents = match fs::read(&self.path) {
            Ok(contents) => contents,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(ResolverError::file("read", &self.path)(error)),
        };

        match Author::of(&contents) {
            Author::Somebody | Author::Firezone => Ok(Resolvers::parse(&contents)),
            Author::Us => Ok(Resolvers::parse(&self.original(&contents)?)),
        }
    }

    /// Puts `wanted` into the file. What somebody else has written into it since the last time becomes the new backup.
    pub(super) fn apply(&mut self, wanted: &Wanted) -> Result<(), ResolverError> {
        self.claim()?;
        let applied = self.apply_claimed(wanted);
        self.drop_idle_claim();

        applied
    }

    fn apply_claimed(&mut self, wanted: &Wanted) -> Result<(), ResolverError> {
        for _ in 0..MAX_TRIES {
            let change = self.prepare(wanted)?;
            if self.replace(change)? {
                return Ok(());
            }
        }

        Err(ResolverError::Restless {
            path: self.path.clone(),
        })
    }

    /// What is to be written in the place of what. That is backed up by then, unless it is ours.
    fn prepare(&self, wanted: &Wanted) -> Result<Change, ResolverError> {
        let mut contents = self.read()?;
        let is_left_over = match Author::of(&contents) {
            Author::Us => self.written.is_none(),
            Author::Firezone => true,
            Author::Somebody => false,
        };
        if is_left_over {
            self.restore_layers()?;
            contents = self.read()?;
        }
        let original = if Author::of(&contents) == Author::Somebody {
            self.back_up(&contents)?;
            contents.clone()
        } else {
            self.original(&contents)?
        };

        let options = ResolvConf::parse(&original).options;
        let search = wanted.search.as_deref();
        let text = ours(&wanted.servers, search, &options, &self.backup);

        Ok(Change {
            from: contents,
            to: text.into_bytes(),
        })
    }

    /// Makes a change, unless somebody has written something else since it was prepared: a backup waits for the disk.
    fn replace(&mut self, change: Change) -> Result<bool, ResolverError> {
        let Change { from, to } = change;
        if self.read()? != from {
            return Ok(false);
        }
        // From here on there is something to take back, even if it is half of it.
        self.written = Some(to.clone());
        if to != from {
            self.write(&to, &from)?;
        }

        Ok(true)
    }

    /// Takes back what was written, unless somebody else has written something since.
    pub(super) fn revert(&mut self) -> Result<(), ResolverError> {
        if self.written.is_none() {
            return Ok(());
        }
        match self.read() {
            Ok(contents) if Author::of(&contents) == Author::Us => {
                self.restore(&contents, &self.backup)?;
            }
            Ok(_) | Err(ResolverError::Missing { .. } | ResolverError::Symlink { .. }) => {}
            Err(error) => return Err(error),
        }
        self.written = None;
        self.drop_idle_claim();

        Ok(())
    }

    /// Ends as a killed process does.
    #[cfg(test)]
    pub(super) fn abandon(&mut self) {
        self.written = None;
        self.drop_idle_claim();
    }

    /// Whether the file holds what was written last, if there is anything to hold.
    pub(super) fn is_intact(&self) -> bool {
        let Some(written) = &self.written else {
            return true;
        };

        self.read().is_ok_and(|contents| contents == *written)
    }

    /// What our text stands in place of.
    fn original(&self, contents: &[u8]) -> Result<Vec<u8>, ResolverError> {
        match fs::read(&self.backup) {
            Ok(original) => Ok(original),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(without_ours(contents).to_vec())
            }
            Err(error) => Err(ResolverError::file("read", &self.backup)(error)),
        }
    }

    fn restore(&self, contents: &[u8], backup: &Path) -> Result<(), ResolverError> {
        let original = match fs::read(backup) {
            Ok(original) if original != contents => original,
            Ok(_) => self.rest(contents),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.rest(contents),
            Err(error) => return Err(ResolverError::file("read", backup)(error)),
        };

        self.write(&original, contents)
    }

    fn rest(&self, contents: &[u8]) -> Vec<u8> {
        tracing::warn!(
            file = %self.path.display(),
            "There is no backup of what a run has replaced; its own text is taken out, look at what is left"
        );

        without_ours(contents).to_vec()
    }

    /// Copies what somebody else has written, all or nothing, with the same owner and mode.
    fn back_up(&self, contents: &[u8]) -> Result<(), ResolverError> {
        let failed = |source| ResolverError::file("back up to", &self.backup)(source);
        let metadata = self.open()?.metadata().map_err(failed)?;
        let temporary = self.temporary();
        let mut copy = self.create(&temporary)?;
        if let Err(error) = fchown(&copy, Some(metadata.uid()), Some(metadata.gid())) {
            tracing::debug!(%error, "the backup has another owner");
        }
        let copied = copy
            .set_permissions(metadata.permissions())
            .and_then(|()| copy.write_all(contents))
            .and_then(|()| copy.sync_all())
            .and_then(|()| fs::rename(&temporary, &self.backup));
        if copied.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        copied.map_err(failed)?;

        // The new name has to be on the disk before the only other copy is overwritten.
        File::open(directory_of(&self.backup))
            .and_then(|directory| directory.sync_all())
            .map_err(failed)
    }

    fn temporary(&self) -> PathBuf {
        with_suffix(&self.backup, ".new")
    }

    fn create(&self, temporary: &Path) -> Result<File, ResolverError> {
        // A killed run may have left one.
        let _ = fs::remove_file(temporary);

        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)
            .map_err(ResolverError::file("create", temporary))
    }

    fn read(&self) -> Result<Vec<u8>, ResolverError> {
        self.refuse_others()?;
        let mut contents = Vec::new();
        let read = |mut file: File| file.read_to_end(&mut contents);
        File::open(&self.path)
            .and_then(read)
            .map_err(ResolverError::file("read", &self.path))?;

        Ok(contents)
    }

    /// Opens the file for writing in place.
    fn open(&self) -> Result<File, ResolverError> {
        self.refuse_others()?;

        OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&self.path)
            .map_err(ResolverError::file("write", &self.path))
    }

    /// Refuses what isn't a regular file: a link, a directory, nothing at all.
    fn refuse_others(&self) -> Result<(), ResolverError> {
        let path = self.path.clone();
        let metadata =
            fs::symlink_metadata(&path).map_err(ResolverError::file("look at", &path))?;
        if metadata.is_symlink() {
            let target = fs::read_link(&path).unwrap_or_default();
            return Err(ResolverError::Symlink { path, target });
        }
        if !metadata.is_file() {
            return Err(ResolverError::NotAFile { path });
        }

        Ok(())
    }

    /// Writes `new` in the place of `old`, which is put back if the disk is full.
    fn write(&self, new: &[u8], old: &[u8]) -> Result<(), ResolverError> {
        let file = self.open()?;
        let write = |contents: &[u8]| {
            cover(&file, contents)?;
            file.set_len(contents.len().try_into().unwrap_or(u64::MAX))?;
            file.sync_data()
        };

        write(new).map_err(|source| {
            let _ = write(old);
            ResolverError::file("write", &self.path)(source)
        })
    }
}

impl Drop for ResolvConfFile {
    fn drop(&mut self) {
        if let Err(error) = self.revert() {
            tracing::warn!(%error, "The machine's resolvers are not restored; the next start will try again");
        }
    }
}

/// Puts a text in the place of a longer or shorter one, with empty lines over what it leaves of a longer one: a crash before
/// the file is cut must not leave a tail that means something. The first line comes first, so that a text of ours that is cut
/// off by a crash is known for ours.
fn cover(file: &File, text: &[u8]) -> io::Result<()> {
    let len = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    let mut covering = text.to_vec();
    covering.resize(len.max(text.len()), b'\n');

    file.write_all_at(&covering, 0)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(suffix);

    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_before_the_file_is_cut_leaves_no_server_of_the_longer_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let longer = "nameserver 192.0.2.1\noptions edns0\nnameserver 100.100.111.1\n";
        for original in [
            "",
            "# by hand\n",
            "nameserver 192.0.2.7",
            "nameserver 192.0.2.8\n",
        ] {
            fs::write(&path, longer).unwrap();
            let file = OpenOptions::new().write(true).open(&path).unwrap();

            cover(&file, original.as_bytes()).unwrap();

            let left = fs::read(&path).unwrap();
            assert!(left.starts_with(original.as_bytes()));
            assert_eq!(
                ResolvConf::parse(&left),
                ResolvConf::parse(original.as_bytes())
            );
        }
    }
    #[test]
    fn what_is_written_during_the_backup_is_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let (first, second) = ("nameserver 192.0.2.1\n", "nameserver 192.0.2.2\n");
        fs::write(&path, first).unwrap();
        let mut file = ResolvConfFile::new(&path);
        let wanted = Wanted {
            servers: vec!["100.100.111.1".parse().unwrap()],
            search: None,
        };

        let change = file.prepare(&wanted).unwrap();
        fs::write(&path, second).unwrap();
        assert!(!file.replace(change).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), second);

        file.apply(&wanted).unwrap();
        assert_eq!(fs::read_to_string(&file.backup).unwrap(), second);
        file.revert().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), second);
    }
}
