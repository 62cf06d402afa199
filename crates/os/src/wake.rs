//! Notice that the machine has slept.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;

use crate::sys;

/// Tells when the machine wakes up. It needs no tick: the kernel tells when the clock jumps, and how far the clock that
/// goes on during suspension has run ahead of the one that doesn't says for how long it slept.
#[derive(Debug)]
pub struct Wakes {
    timer: AsyncFd<OwnedFd>,
    slept: Slept,
}

impl Wakes {
    /// Begins to listen. Needs a tokio runtime with its I/O driver enabled.
    ///
    /// # Errors
    ///
    /// The process has too many open files.
    pub fn new() -> io::Result<Self> {
        let timer = sys::time::create_day_timer()?;
        sys::time::await_jump(timer.as_fd())?;

        Ok(Self {
            timer: sys::time::watch(timer)?,
            slept: Slept::until_now(in_all()),
        })
    }

    /// Waits until the machine has slept, and returns for how long. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// The kernel no longer tells.
    pub async fn next(&mut self) -> io::Result<Duration> {
        loop {
            let mut jumped = self.timer.readable().await?;
            jumped.clear_ready();
            // Setting it anew also takes the readiness back.
            sys::time::await_jump(self.timer.get_ref().as_fd())?;
            if let Some(slept) = self.slept.since_last(in_all()) {
                return Ok(slept);
            }
        }
    }
}

/// For how long the machine has slept since it was started.
fn in_all() -> Duration {
    let awake = sys::time::awake();

    sys::time::since_boot().saturating_sub(awake)
}

/// How long the machine had slept when it was last asked.
#[derive(Clone, Copy, Debug)]
struct Slept {
    in_all: Duration,
}

/// The two clocks aren't read at the same time.
const NOISE: Duration = Duration::from_millis(100);

impl Slept {
    fn until_now(in_all: Duration) -> Self {
        Self { in_all }
    }

    /// What has come on top; `None` if the jump was not by a suspension.
    fn since_last(&mut self, in_all: Duration) -> Option<Duration> {
        let slept = in_all.saturating_sub(self.in_all);
        if slept < NOISE {
            return None;
        }
        self.in_all = in_all;

        Some(slept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::Builder;
    use tokio::time::timeout;

    #[test]
    fn a_machine_that_was_awake_has_not_slept() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();

        runtime.block_on(async {
            let mut wakes = Wakes::new().unwrap();
            let waking = timeout(Duration::from_millis(20), wakes.next());
            assert!(waking.await.is_err());
        });
    }

    #[test]
    fn sleep_is_told_once_and_a_clock_that_is_set_is_none() {
        let hour = Duration::from_secs(3600);
        let mut slept = Slept::until_now(hour);

        assert_eq!(slept.since_last(hour), None);
        assert_eq!(slept.since_last(hour + NOISE / 2), None);
        assert_eq!(
            slept.since_last(hour + Duration::from_secs(9)),
            Some(Duration::from_secs(9))
        );
        assert_eq!(slept.since_last(hour + Duration::from_secs(9)), None);
    }
}
