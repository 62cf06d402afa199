//! What all programs that run for long share: a runtime and signals.

use std::io;
use std::time::Duration;

use connlib::{Client, Error, Gateway, Portal, Relay};
use connlib_os::process;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use crate::exit::{Exit, Failure};
use crate::ready::Ready;

/// How long a role may take to end once it has nobody to serve: a second for its goodbyes, six for the machine's resolver
/// settings, which may wait for systemd-resolved, and two for the portal and for what can't be interrupted.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A role that runs, whichever it is.
pub(crate) trait Running: Clone + Send + 'static {
    /// Waits until it does what it is for.
    fn wait_ready(&self) -> Result<(), Error>;
    /// Waits until it has ended.
    fn wait(&self) -> Result<(), Error>;
    /// Asks it to end; a second time, to wait for nobody.
    fn stop(&self);
    /// Tells it that the network changed.
    fn reset(&self);
}

/// Lets a role run until a signal ends it or it ends by itself, and tells the parent when it is ready. It may serve others for
/// `drain` after the first signal, but not after the second.
///
/// # Errors
///
/// It has ended by itself.
pub(crate) fn until_stopped(
    role: impl Running,
    ready: Ready,
    drain: Duration,
) -> Result<(), Failure> {
    block_on(async move {
        let mut signals = Signals::new()?;
        let waiting = role.clone();
        let mut readiness = spawn_blocking(move || waiting.wait_ready());
        let waiting = role.clone();
        let mut end = spawn_blocking(move || waiting.wait());
        let mut ready = Some(ready);

        loop {
            tokio::select! {
                ended = &mut end => return ended.map_err(crashed)?.map_err(Failure::from),
                result = &mut readiness, if ready.is_some() => {
                    let ready = ready.take();
                    // If it fails the end tells why.
                    if let (Ok(()), Some(ready)) = (result.map_err(crashed)?, ready) {
                        ready.tell();
                    }
                }
                told = signals.next() => match told {
                    Told::NetworkChanged => role.reset(),
                    Told::Stop => break,
                },
            }
        }

        role.stop();
        let mut ends_at = Instant::now() + drain + ENDS_WITHIN;
        loop {
            tokio::select! {
                ended = &mut end => return ended.map_err(crashed)?.map_err(Failure::from),
                () = sleep_until(ends_at) => {
                    tracing::debug!("Not everything has ended in time");
                    return Ok(());
                }
                told = signals.next() => if told == Told::Stop {
                    role.stop();
                    ends_at = ends_at.min(Instant::now() + ENDS_WITHIN);
                },
            }
        }
    })
}

/// Takes as many descriptors as this process may have: a peer or an allocation needs one or two, and most systems give a
/// thousand unless they are asked.
pub(crate) fn use_all_descriptors() {
    match process::raise_descriptor_limit() {
        Ok(limit) => tracing::debug!(limit, "Descriptors"),
        Err(error) => tracing::info!(%error, "The limit of descriptors stays as it is"),
    }
}

/// Runs `future` on a runtime of this thread.
///
/// # Errors
///
/// Exit 5: there is no runtime; else what `future` fails with.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::os("start the runtime", &error))?;
    let result = runtime.block_on(future);
    // Work that blocks is not waited for: the process is about to end.
    runtime.shutdown_background();

    result
}

/// What the user or the system tells a program that runs.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Begins to listen; from now on none of them ends the process by itself.
    ///
    /// # Errors
    ///
    /// Exit 5: they can't be listened to.
    pub(crate) fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind);
        let all = || -> io::Result<Self> {
            Ok(Self {
                interrupt: listen(SignalKind::interrupt())?,
                terminate: listen(SignalKind::terminate())?,
                hang_up: listen(SignalKind::hangup())?,
            })
        };

        all().map_err(|error| Failure::os("listen to signals", &error))
    }

    /// Waits for any of them.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.terminate.recv() => Told::Stop,
            _ = self.hang_up.recv() => Told::NetworkChanged,
        }
    }
}

/// What a signal means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Told {
    /// SIGINT, SIGTERM: end.
    Stop,
    /// SIGHUP: the network changed.
    NetworkChanged,
}

/// A thread of this program has panicked, and has said so.
fn crashed(error: JoinError) -> Failure {
    Failure::new(
        Exit::Failed,
        format_args!("a thread crashed ({error}); please report what the log says"),
    )
}

macro_rules! running {
    ($role:ident) => {
        impl Running for $role {
            fn wait_ready(&self) -> Result<(), Error> {
                $role::wait_ready(self)
            }

            fn wait(&self) -> Result<(), Error> {
                $role::wait(self)
            }

            fn stop(&self) {
                $role::stop(self);
            }

            fn reset(&self) {
                $role::reset(self);
            }
        }
    };
}

running!(Client);
running!(Gateway);

impl Running for Relay {
    fn wait_ready(&self) -> Result<(), Error> {
        Self::wait_ready(self)
    }

    fn wait(&self) -> Result<(), Error> {
        Self::wait(self)
    }

    fn stop(&self) {
        Self::stop(self);
    }

    /// A relay's address is what others know it by; there is nothing to begin anew.
    fn reset(&self) {}
}

impl Running for Portal {
    /// It listens once it has started.
    fn wait_ready(&self) -> Result<(), Error> {
        Ok(())
    }

    fn wait(&self) -> Result<(), Error> {
        Self::wait(self)
    }

    fn stop(&self) {
        Self::stop(self);
    }

    /// It listens where it was told to.
    fn reset(&self) {}
}
