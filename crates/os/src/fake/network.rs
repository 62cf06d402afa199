//! A network in memory.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::network::{Network, Way};

/// A network in memory, for simulations and tests. Clones are the same network: one for its world, one for who watches.
#[derive(Clone, Debug, Default)]
pub struct FakeNetwork {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    ways: BTreeMap<IpAddr, Way>,
    has_changed: bool,
    has_ended: bool,
    waiting: Option<Waker>,
}

impl FakeNetwork {
    /// A network that leads nowhere.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `way` the way to `destination`, or takes it away. It is not told before [`notify`](Self::notify).
    pub fn set_way(&self, destination: IpAddr, way: Option<Way>) {
        let mut state = self.lock();
        match way {
            Some(way) => state.ways.insert(destination, way),
            None => state.ways.remove(&destination),
        };
    }

    /// Tells who waits that something has changed, whether or not it has.
    pub fn notify(&self) {
        let mut state = self.lock();
        state.has_changed = true;
        state.wake();
    }

    /// Lets every later question fail.
    pub fn end(&self) {
        let mut state = self.lock();
        state.has_ended = true;
        state.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.has_ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }

        Ok(())
    }
}

impl Network for FakeNetwork {
    type Error = io::Error;

    async fn changed(&mut self) -> io::Result<()> {
        poll_fn(|context| {
            let mut state = self.lock();
            if let Err(error) = state.check() {
                return Poll::Ready(Err(error));
            }
            if std::mem::take(&mut state.has_changed) {
                return Poll::Ready(Ok(()));
            }
            state.waiting = Some(context.waker().clone());

            Poll::Pending
        })
        .await
    }

    async fn way_to(&mut self, destination: IpAddr) -> io::Result<Option<Way>> {
        let state = self.lock();
        state.check()?;

        Ok(state.ways.get(&destination).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Context;

    const SOMEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));

    #[test]
    fn a_change_is_told_once_and_ways_are_what_the_world_says() {
        let world = FakeNetwork::new();
        let mut network = world.clone();
        let way = Way {
            source: [192, 0, 2, 1].into(),
            interface: 7,
            router: None,
        };
        world.set_way(SOMEWHERE, Some(way));

        assert!(now(network.changed()).is_none());
        world.notify();
        assert!(now(network.changed()).unwrap().is_ok());
        assert!(now(network.changed()).is_none());
        assert_eq!(now(network.way_to(SOMEWHERE)).unwrap().unwrap(), Some(way));
        world.set_way(SOMEWHERE, None);
        assert_eq!(now(network.way_to(SOMEWHERE)).unwrap().unwrap(), None);
        world.end();
        assert!(now(network.changed()).unwrap().is_err());
    }

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(future).poll(&mut context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }
}
