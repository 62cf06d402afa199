//! Telling whoever started the program that it is ready: `--ready-fd` and systemd's `NOTIFY_SOCKET`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use connlib_os::process;

use crate::environment::Environment;
use crate::exit::{Exit, Failure};

/// Who waits for this program to be ready.
#[derive(Debug)]
pub(crate) struct Ready {
    file: Option<File>,
    socket: Option<OsString>,
}

/// What both are told; sd_notify(3).
const READY: &[u8] = b"READY=1\n";

impl Ready {
    /// Takes over the descriptor, before this program opens any of its own.
    ///
    /// # Errors
    ///
    /// No such descriptor was handed to this program.
    pub(crate) fn new(fd: Option<u32>, environment: &Environment) -> Result<Self, Failure> {
        let take = |number| {
            process::take_inherited_fd(number).map_err(|error| {
                Failure::new(
                    Exit::WrongUse,
                    format_args!(
                        "--ready-fd {number}: {error}; the parent must leave that descriptor open for its child"
                    ),
                )
            })
        };

        Ok(Self {
            file: fd.map(take).transpose()?.map(File::from),
            socket: environment.value("NOTIFY_SOCKET").map(OsStr::to_owned),
        })
    }

    /// Says that the program is ready. The descriptor is closed with it.
    pub(crate) fn tell(self) {
        let told = self.file.map_or(Ok(()), |mut file| file.write_all(READY));
        let notified = self.socket.map_or(Ok(()), |socket| notify(&socket));

        for result in [told, notified] {
            if let Err(error) = result {
                tracing::warn!(%error, "Can't tell the parent process that this one is ready");
            }
        }
    }
}

fn notify(socket: &OsStr) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };

    sender.send_to_addr(READY, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_with_a_path_and_one_without_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("@connlib-test-{}", std::process::id());
        let of_path = UnixDatagram::bind(&path).unwrap();
        let abstract_one = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        let abstract_one = UnixDatagram::bind_addr(&abstract_one).unwrap();

        for (receiver, socket) in [(of_path, path.to_str().unwrap()), (abstract_one, &name)] {
            let environment = Environment::of(&[("NOTIFY_SOCKET", socket)], &[]);
            Ready::new(None, &environment).unwrap().tell();

            let mut message = [0; 64];
            let len = receiver.recv(&mut message).unwrap();
            assert_eq!(&message[..len], READY);
        }
    }

    #[test]
    fn a_descriptor_that_was_not_handed_over_is_wrong_use() {
        let failure = Ready::new(Some(9_999), &Environment::default()).unwrap_err();

        assert_eq!(failure.exit, Exit::WrongUse);
        assert!(failure.to_string().contains("9999"), "{failure}");
    }
}
