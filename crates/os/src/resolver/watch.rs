//! Notice of changes of files, by inotify.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::directory_of;
use super::error::ResolverError;
use crate::sys;

/// Tells that files may have changed: they, or the links that lead to them.
#[derive(Debug)]
pub(super) struct FileWatch {
    files: Vec<PathBuf>,
    /// `None` where the system has none left for us.
    notices: Option<Notices>,
    /// The one that is being waited for, or looked into.
    burst: Option<Burst>,
    look_again_at: Instant,
}

/// What the kernel tells.
#[derive(Debug)]
struct Notices {
    inotify: AsyncFd<File>,
    watches: BTreeMap<i32, Watched>,
    /// Whether everything is watched: a directory that doesn't exist can't be.
    is_whole: bool,
}

#[derive(Debug)]
enum Watched {
    /// These names in a directory.
    Names(BTreeSet<OsString>),
    /// A file, wherever it is: one that is mounted upon another changes without notice in the directory.
    File,
}

/// When it began, and when its latest notice came.
#[derive(Clone, Copy, Debug)]
struct Burst {
    began_at: Instant,
    latest_at: Instant,
}

/// Without another notice for that long a burst is over: a file that is being rewritten is whole again.
const QUIET: Duration = Duration::from_millis(100);

/// A burst isn't waited for any longer.
const MAX_BURST: Duration = Duration::from_secs(1);

/// How often to look where there won't be a notice; Firezone's client looks that often, too.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How many links may lead to a file; the kernel's own limit is 40.
const MAX_LINKS: usize = 8;

const MASK: u32 = libc::IN_MODIFY
    | libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_DELETE_SELF
    | libc::IN_MOVED_FROM
    | libc::IN_MOVED_TO
    | libc::IN_MOVE_SELF;

impl FileWatch {
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        let mut watch = Self {
            files,
            notices: None,
            burst: None,
            look_again_at: Instant::now() + LOOK_AGAIN,
        };
        watch.arm();

        watch
    }

    /// Waits until there was a burst of changes and it is over, or until it is time to look because there may be no
    /// notice (`must_look`, or something isn't there to be watched). Then all that happens from now on is told anew.
    ///
    /// Until [`looked`](Self::looked) is called it returns at once: dropping the future, or whatever comes after it,
    /// loses nothing.
    pub(super) async fn changed(&mut self, must_look: bool) -> Result<(), ResolverError> {
        let mut burst = match self.burst {
            Some(burst) => burst,
            None => {
                self.first(must_look).await?;
                let now = Instant::now();
                *self.burst.insert(Burst {
                    began_at: now,
                    latest_at: now,
                })
            }
        };
        loop {
            let over_at = (burst.latest_at + QUIET).min(burst.began_at + MAX_BURST);
            if Instant::now() >= over_at {
                break;
            }
            let Ok(notice) = timeout_at(over_at, self.notice()).await else {
                break;
            };
            notice?;
            burst.latest_at = Instant::now();
            self.burst = Some(burst);
        }
        // Links may lead elsewhere now, and files may be others.
        self.arm();

        Ok(())
    }

    /// The latest change was looked into.
    pub(super) fn looked(&mut self) {
        self.burst = None;
    }

    async fn first(&mut self, must_look: bool) -> Result<(), ResolverError> {
        if !must_look && self.notices.as_ref().is_some_and(|it| it.is_whole) {
            return self.notice().await;
        }
        if let Ok(notice) = timeout_at(self.look_again_at, self.notice()).await {
            return notice;
        }
        self.look_again_at = Instant::now() + LOOK_AGAIN;

        Ok(())
    }

    async fn notice(&mut self) -> Result<(), ResolverError> {
        if let Some(notices) = &mut self.notices {
            let next = notices.next().await;
            return next.map_err(|source| ResolverError::Watch { source });
        }
        // Whoever waits for this waits with a limit.
        sleep_until(self.look_again_at).await;

        Ok(())
    }

    fn arm(&mut self) {
        self.notices = Notices::of(&self.files)
            .inspect_err(|error| tracing::debug!(%error, "looking for changes by the clock"))
            .ok();
    }
}

impl Notices {
    fn of(files: &[PathBuf]) -> io::Result<Self> {
        let inotify = sys::inotify::watch(sys::inotify::create()?)?;
        let mut notices = Self {
            inotify,
            watches: BTreeMap::new(),
            is_whole: true,
        };
        for file in files {
            for path in links(file) {
                notices.watch_name(&path)?;
            }
            match notices.add(file, 0) {
                Ok(number) => {
                    notices.watches.insert(number, Watched::File);
                }
                Err(error) if means_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }

        Ok(notices)
    }

    fn watch_name(&mut self, path: &Path) -> io::Result<()> {
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        match self.add(directory_of(path), libc::IN_ONLYDIR) {
            Ok(number) => {
                let watched = self
                    .watches
                    .entry(number)
                    .or_insert(Watched::Names(BTreeSet::new()));
                if let Watched::Names(names) = watched {
                    names.insert(name.into());
                }
            }
            Err(error) if means_missing(&error) => self.is_whole = false,
            Err(error) => return Err(error),
        }

        Ok(())
    }

    fn add(&self, path: &Path, flags: u32) -> io::Result<i32> {
        sys::inotify::add(self.inotify.get_ref().as_fd(), path, MASK | flags)
    }

    /// Waits for a notice that counts.
    async fn next(&mut self) -> io::Result<()> {
        // Room for a hundred events with names of usual length.
        let mut buffer = [0; 4096];
        loop {
            let mut ready = self.inotify.readable().await?;
            match ready.try_io(|inotify| inotify.get_ref().read(&mut buffer)) {
                Ok(read) => {
                    let read = buffer.get(..read?).unwrap_or_default();
                    if events(read).any(|event| self.counts(&event)) {
                        return Ok(());
                    }
                }
                // It wasn't ready after all.
                Err(_) => continue,
            }
        }
    }

    fn counts(&self, event: &Event<'_>) -> bool {
        if event.mask & libc::IN_Q_OVERFLOW != 0 {
            return true;
        }
        match self.watches.get(&event.watch) {
            // Without a name it is about the directory itself.
            Some(Watched::Names(names)) => event.name.is_empty() || names.contains(event.name),
            Some(Watched::File) => true,
            None => false,
        }
    }
}

/// One event (inotify(7)).
#[derive(Debug, Eq, PartialEq)]
struct Event<'a> {
    watch: i32,
    mask: u32,
    name: &'a OsStr,
}

/// Splits what was read into events.
fn events(mut bytes: &[u8]) -> impl Iterator<Item = Event<'_>> {
    std::iter::from_fn(move || {
        let (watch, rest) = bytes.split_first_chunk()?;
        let (mask, rest) = rest.split_first_chunk()?;
        let (_cookie, rest) = rest.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first_chunk()?;
        let len = usize::try_from(u32::from_ne_bytes(*len)).ok()?;
        let (name, rest) = rest.split_at_checked(len)?;
        bytes = rest;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();

        Some(Event {
            watch: i32::from_ne_bytes(*watch),
            mask: u32::from_ne_bytes(*mask),
            name: OsStr::from_bytes(name),
        })
    })
}

/// A path and, as long as it is a link, where it leads.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut links = vec![path.to_path_buf()];
    let mut path = path.to_path_buf();
    while links.len() < MAX_LINKS
        && let Ok(target) = fs::read_link(&path)
    {
        path = path.with_file_name(target);
        links.push(path.clone());
    }

    links
}

fn means_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EACCES)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart() {
        let mut bytes = Vec::new();
        for (watch, mask, name) in [
            (1_i32, libc::IN_MODIFY, ""),
            (2, libc::IN_CREATE, "a\0\0\0"),
        ] {
            bytes.extend(watch.to_ne_bytes());
            bytes.extend(mask.to_ne_bytes());
            bytes.extend(0_u32.to_ne_bytes());
            bytes.extend((name.len() as u32).to_ne_bytes());
            bytes.extend(name.as_bytes());
        }

        let all: Vec<_> = events(&bytes)
            .map(|event| (event.watch, event.mask, event.name))
            .collect();

        let expected = [(1, libc::IN_MODIFY, ""), (2, libc::IN_CREATE, "a")];
        assert_eq!(
            all,
            expected.map(|(watch, mask, name)| (watch, mask, OsStr::new(name)))
        );
        for len in 0..bytes.len() {
            assert!(events(&bytes[..len]).count() < 2, "cut off after {len}");
        }
    }

    #[test]
    fn links_are_followed_to_where_they_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("sub")).unwrap();
        std::os::unix::fs::symlink("sub/b", path("a")).unwrap();
        std::os::unix::fs::symlink(path("missing/c"), path("sub/b")).unwrap();
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();

        assert_eq!(
            links(&path("a")),
            [path("a"), path("sub/b"), path("missing/c")]
        );
        assert_eq!(links(&path("loop")).len(), MAX_LINKS);
    }
}
