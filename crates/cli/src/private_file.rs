//! Files that nobody else may read: tokens and keys (cli.md "Settings").

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use connlib_os::process;
use connlib_wire::secret::Secret;

use crate::exit::{Exit, Failure};

/// A kind of private files, in the words of people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrivateFile {
    /// What it is.
    pub(crate) what: &'static str,
    /// The flag that names it.
    pub(crate) flag: &'static str,
}

/// What keeps others from reading a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Privacy {
    /// Its mode, which is looked at.
    Checked,
    /// The directory that it is in.
    OfDirectory,
}

/// The longest that is of use, in bytes. What is longer is read by one byte more, to be told from that.
pub(crate) const MAX_LEN: u64 = 64 * 1024;

impl PrivateFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// Exit 3: it can't be read, is no text, or others may read it. The message names the file and what to do, never what is in it.
    pub(crate) fn read(self, path: &Path, privacy: Privacy) -> Result<Secret, Failure> {
        let Self { what, flag } = self;
        let shown = path.display();
        let file = File::open(path).map_err(|error| {
            let remedy = if error.kind() == io::ErrorKind::NotFound {
                format!("create it with mode 0600, or name another one with {flag}")
            } else {
                "run as the user that owns it, or make it that user's with `chown`".to_owned()
            };
            refused(format_args!(
                "can't read the {what} {shown}: {error}; {remedy}"
            ))
        })?;

        // Of the file that is open: another one may be there by now.
        let metadata = file
            .metadata()
            .map_err(|error| refused(format_args!("can't look at the {what} {shown}: {error}")))?;
        if !metadata.is_file() {
            return Err(refused(format_args!(
                "the {what} {shown} is no file; name one with {flag}"
            )));
        }
        if let Privacy::Checked = privacy {
            self.check_privacy(path, metadata.mode(), metadata.uid())?;
        }

        let mut text = String::new();
        file.take(MAX_LEN + 1)
            .read_to_string(&mut text)
            .map_err(|error| {
                refused(format_args!(
                    "can't read the {what} {shown}: {error}; write it anew"
                ))
            })?;

        Ok(Secret::from(text))
    }

    fn check_privacy(self, path: &Path, mode: u32, owner: u32) -> Result<(), Failure> {
        let what = self.what;
        let shown = path.display();
        // Anything but reading and writing by the owner.
        if mode & 0o177 != 0 {
            return Err(refused(format_args!(
                "others may read or run the {what} {shown} (mode {:04o}); run `chmod 600 {shown}`, and consider what is in it \
                 known to them",
                mode & 0o7777
            )));
        }
        if owner != 0 && owner != process::effective_uid() {
            return Err(refused(format_args!(
                "the {what} {shown} belongs to the user {owner}, neither to root nor to you; make it yours with `chown`"
            )));
        }

        Ok(())
    }
}

fn refused(message: fmt::Arguments<'_>) -> Failure {
    Failure::new(Exit::NotAuthorised, message)
}
