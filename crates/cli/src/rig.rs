//! A whole system on this machine alone: what the demo shows and the bench measures.
//!
//! ```text
//! plan, network   places, their addresses, namespaces, cables     system     portal, relay, gateway, client
//! certificates    an authority for the run                        children   processes
//! topology        who may reach what                              scratch    files that vanish
//! ping, contact   the first packets                                narration  what is told meanwhile
//! ```

pub(crate) mod certificates;
pub(crate) mod children;
pub(crate) mod contact;
pub(crate) mod narration;
pub(crate) mod network;
pub(crate) mod ping;
pub(crate) mod plan;
pub(crate) mod scratch;
pub(crate) mod system;
pub(crate) mod topology;

use std::fs::OpenOptions;
use std::io;
use std::thread;

use connlib_os::namespace::{Namespace, NamespaceError, enter_user_namespace};
use connlib_os::process;
use tokio::task::JoinError;

use crate::exit::{Exit, Failure};

pub(crate) use scratch::sweep;

/// Holds a namespace until it is killed: what the hidden verb does.
pub(crate) fn hold() -> ! {
    loop {
        thread::park();
    }
}

/// Sees to it that this process may make namespaces, interfaces and routes. It must have a single thread.
///
/// # Errors
///
/// Exit 5: it may not; the message says what grants it.
pub(crate) fn gain_rights() -> Result<(), Failure> {
    let has_rights = match Namespace::create() {
        Ok(_) => true,
        Err(NamespaceError::PermissionDenied { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    if !has_rights {
        enter_user_namespace()?;
    }

    check_device()
}

/// Rights over a network of one's own don't open the device.
fn check_device() -> Result<(), Failure> {
    match OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
    {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure::new(
            Exit::Os,
            format_args!(
                "can't open /dev/net/tun as this user: {error}; allow it with `sudo chmod 0666 /dev/net/tun` or run as root"
            ),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound && process::effective_uid() != 0 => {
            Err(Failure::new(
                Exit::Os,
                "this machine has no /dev/net/tun; make it with `sudo modprobe tun`",
            ))
        }
        // Anything else shows when the device is made.
        _ => Ok(()),
    }
}

/// A thread of this program has panicked.
pub(crate) fn broken(error: JoinError) -> Failure {
    Failure::new(
        Exit::Failed,
        format_args!("this program itself is broken: {error}"),
    )
}
