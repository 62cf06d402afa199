//! What every role needs of the process and the machine that it runs in.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::error::Error;

/// How long threads that can't be interrupted are waited for at the end (client.md §13).
const END_WITHIN: Duration = Duration::from_secs(1);

/// A runtime of one thread: the caller's.
pub(crate) fn runtime() -> Result<Runtime, Error> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::resource("a runtime"))
}

/// Runs a future to its end. What it has begun that blocks a thread is not waited for much longer: libc may look for a name for
/// a minute.
pub(crate) fn run_to_end<T>(runtime: Runtime, future: impl Future<Output = T>) -> T {
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(END_WITHIN);

    result
}

/// Fresh entropy.
pub(crate) fn seed() -> Result<[u8; 32], Error> {
    connlib_os::random::seed().map_err(|source| {
        Error::Os(crate::error::OsRefused::Resource {
            what: "randomness",
            source: Arc::new(source),
        })
    })
}

/// What this machine is called.
pub(crate) fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();

    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_stuck_does_not_keep_a_role_from_ending() {
        let (let_go, stuck) = std::sync::mpsc::channel::<()>();
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let work = async {
                drop(tokio::task::spawn_blocking(move || stuck.recv()));
                tokio::task::yield_now().await;
            };
            run_to_end(runtime().unwrap(), work);
            ended.send(()).unwrap();
        });

        assert!(end.recv_timeout(END_WITHIN * 10).is_ok());
        drop(let_go);
    }
}
