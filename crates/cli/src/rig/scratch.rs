//! The files of a rig: a private directory that is gone after it, however it ends.

use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use connlib_os::random;
use tokio::process::{Child, Command};

use crate::exit::{Exit, Failure};

/// A private directory, and a process that removes it when this one has ended without doing so.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    sweeper: Child,
}

/// What the directory's name begins with.
const PREFIX: &str = "connlib-rig-";

impl Scratch {
    /// Makes the directory.
    ///
    /// # Errors
    ///
    /// Exit 5: it can't be made, or no process can be started.
    pub(crate) fn create(program: &Path) -> Result<Self, Failure> {
        let name = random_name().map_err(|error| Failure::os("name a directory", &error))?;
        let path = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| {
                Failure::os(
                    format_args!("make the directory {}; set TMPDIR", path.display()),
                    &error,
                )
            })?;

        // It learns by the end of its input that we have ended; a group of its own keeps Ctrl-C from it.
        let sweeper = Command::new(program)
            .arg("rig-sweep")
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .env_clear()
            .process_group(0)
            .spawn();
        match sweeper {
            Ok(sweeper) => Ok(Self { path, sweeper }),
            Err(error) => {
                let _ = fs::remove_dir(&path);
                Err(Failure::os(
                    format_args!("start {}", program.display()),
                    &error,
                ))
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes it and waits for the other process to end.
    pub(crate) async fn remove(mut self) {
        drop(self.sweeper.stdin.take());
        if let Err(error) = self.sweeper.wait().await {
            tracing::warn!(%error, "Can't wait for the process that removes the temporary files");
        }
    }
}

/// What the other process does: waits until nobody holds the other end of its input any more, and removes `directory`.
///
/// # Errors
///
/// Exit 2: this is no directory of a demo's or a bench's. Exit 5: it can't be removed.
pub(crate) fn sweep(directory: &Path) -> Result<(), Failure> {
    let is_ours = directory
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(PREFIX));
    if !is_ours {
        return Err(Failure::new(
            Exit::WrongUse,
            format_args!(
                "{} is no directory of a demo's or a bench's",
                directory.display()
            ),
        ));
    }

    // Whatever the error is, nobody will tell us anything any more.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::os(
            format_args!("remove {}", directory.display()),
            &error,
        )),
        _ => Ok(()),
    }
}

fn random_name() -> io::Result<String> {
    let seed = random::seed()?;
    let suffix: String = seed
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();

    Ok(format!("{PREFIX}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_directories_are_never_removed() {
        let directory = tempfile::tempdir().unwrap();

        for path in [directory.path(), Path::new("/"), Path::new("..")] {
            assert_eq!(sweep(path).unwrap_err().exit, Exit::WrongUse);
        }
        assert!(directory.path().exists());
    }
}
