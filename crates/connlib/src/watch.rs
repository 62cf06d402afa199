//! A value of a running role that changes: what it is now, and what it is next.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::sync::watch;

/// A value that changes. Whoever comes late sees what it is, and whoever is slow sees the latest value, not each one.
#[derive(Clone, Debug)]
pub struct Watch<T> {
    values: watch::Receiver<T>,
}

impl<T: Clone> Watch<T> {
    pub(crate) fn new(values: watch::Receiver<T>) -> Self {
        Self { values }
    }

    /// What it is.
    pub fn get(&self) -> T {
        self.values.borrow().clone()
    }

    /// Waits until it is another than when [`wait`](Self::wait) or [`next`](Self::next) returned last, at first than at the
    /// beginning; `None` once the role has ended. Blocks the thread: in a task, use [`next`](Self::next).
    pub fn wait(&mut self) -> Option<T> {
        let parked = Arc::new(Parked(thread::current()));
        let waker = Waker::from(parked);
        let mut context = Context::from_waker(&waker);
        let mut next = pin!(self.next());
        loop {
            if let Poll::Ready(value) = next.as_mut().poll(&mut context) {
                return value;
            }
            thread::park();
        }
    }

    /// The same for a task, of whatever runtime.
    pub async fn next(&mut self) -> Option<T> {
        self.values.changed().await.ok()?;

        Some(self.values.borrow_and_update().clone())
    }
}

struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_sees_the_latest_value_and_the_end() {
        let (sender, values) = watch::channel(1);
        let mut watch = Watch::new(values);
        assert_eq!(watch.get(), 1);

        sender.send_replace(2);
        sender.send_replace(3);
        assert_eq!(watch.wait(), Some(3));

        let mut other = watch.clone();
        let waiting = thread::spawn(move || [other.wait(), other.wait()]);
        sender.send_replace(4);
        drop(sender);
        let seen = waiting.join().unwrap();
        assert_eq!(seen, [Some(4), None]);
        assert_eq!((watch.wait(), watch.wait()), (Some(4), None));
        assert_eq!(watch.get(), 4, "what it was");
    }
}
