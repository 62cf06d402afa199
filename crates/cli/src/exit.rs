//! Exit codes (cli.md "Exit codes"): the one place that knows which error means which number.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use connlib_os::namespace::NamespaceError;
use connlib_os::netlink::NetlinkError;

/// Why the program ends, for scripts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// A reason of its own.
    Failed = 1,
    /// Arguments, configuration file or environment are wrong.
    WrongUse = 2,
    /// The token is missing, unreadable, malformed, expired or revoked.
    NotAuthorised = 3,
    /// The portal or the network isn't there.
    Network = 4,
    /// The operating system refused.
    Os = 5,
}

/// The end of a run that did not do what it was asked for.
///
/// The message is one sentence or two: cause, subject, next step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }

    /// What is promised for a later version.
    pub(crate) fn later(what: impl fmt::Display) -> Self {
        Self::new(
            Exit::WrongUse,
            format_args!("{what} is not in this version; see `connlib --help` for what is"),
        )
    }

    /// The operating system refused something that has no words of its own.
    pub(crate) fn os(action: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(Exit::Os, format_args!("can't {action}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

impl From<NamespaceError> for Failure {
    fn from(error: NamespaceError) -> Self {
        Self::new(Exit::Os, error)
    }
}

impl From<NetlinkError> for Failure {
    fn from(error: NetlinkError) -> Self {
        Self::new(Exit::Os, error)
    }
}

impl From<connlib::Error> for Failure {
    fn from(error: connlib::Error) -> Self {
        let exit = match &error {
            connlib::Error::Misconfigured(_) => Exit::WrongUse,
            connlib::Error::NotAuthorised(_) => Exit::NotAuthorised,
            connlib::Error::Network(_) => Exit::Network,
            connlib::Error::Os(_) => Exit::Os,
            connlib::Error::Other(_) | _ => Exit::Failed,
        };

        Self::new(exit, error)
    }
}

/// Tells a failure on stderr, and what the program ends with.
pub(crate) fn report(result: &Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    // There is nobody left to tell that stderr is closed.
    let _ = writeln!(io::stderr(), "connlib: {failure}");

    ExitCode::from(failure.exit as u8)
}

/// Writes to stdout what the user asked for.
///
/// # Errors
///
/// Stdout can't be written to. A reader that has seen enough (`connlib … | head`) is none.
pub(crate) fn print(text: impl fmt::Display) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();

    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Failed,
            format_args!("can't write to stdout: {error}"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_that_scripts_know() {
        let numbers = [
            Exit::Failed,
            Exit::WrongUse,
            Exit::NotAuthorised,
            Exit::Network,
            Exit::Os,
        ]
        .map(|exit| exit as u8);

        assert_eq!(numbers, [1, 2, 3, 4, 5]);
    }
}
