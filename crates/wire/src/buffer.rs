//! Memory for packets: pools of equal buffers, with room in front for headers that come later.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;

/// Hands out buffers of one size and takes them back when they are dropped.
///
/// Cloning a pool is cheap; the clones share the same free buffers. Its owner calls [`trim`](Self::trim) now and then,
/// so that what a burst needed isn't kept for ever.
#[derive(Clone)]
pub struct Pool {
    shelf: Arc<Shelf>,
}

/// The buffers that are not in use.
struct Shelf {
    /// Each has the capacity of a buffer; how long it is says how much of it was in use so far.
    free: ArrayQueue<Vec<u8>>,
    size: usize,
    /// The fewest that lay here since the pool was trimmed: so many were not needed.
    /// Threads that race may count a few too many as needed or not; that costs an allocation at most.
    fewest: AtomicUsize,
}

impl Pool {
    /// Creates a pool of buffers of `size` bytes that keeps at most `keep` of them when they are not in use.
    pub fn new(size: usize, keep: usize) -> Self {
        Self {
            shelf: Arc::new(Shelf {
                free: ArrayQueue::new(keep.max(1)),
                size,
                fewest: AtomicUsize::new(0),
            }),
        }
    }

    /// Takes an empty buffer with `headroom` bytes free in front of its contents.
    ///
    /// What the memory held before is not cleared; it can't be seen through the buffer until it is overwritten.
    pub fn take(&self, headroom: usize) -> Buffer {
        let size = self.shelf.size;
        let mut bytes = self.shelf.take().unwrap_or_else(|| vec![0; size]);
        let start = headroom.min(size);
        if bytes.len() < start {
            bytes.resize(start, 0);
        }

        self.buffer(bytes, start)
    }

    /// Takes a buffer that holds a copy of `contents`; `None` if they are larger than the pool's buffers.
    pub fn copy(&self, contents: &[u8]) -> Option<Buffer> {
        let size = self.shelf.size;
        if contents.len() > size {
            return None;
        }
        // Memory that is new holds nothing but the copy: most copies are far smaller than a buffer.
        let bytes = self.shelf.take();
        let mut buffer = self.buffer(bytes.unwrap_or_else(|| Vec::with_capacity(size)), 0);
        buffer.extend(contents.len())?.copy_from_slice(contents);

        Some(buffer)
    }

    fn buffer(&self, bytes: Vec<u8>, start: usize) -> Buffer {
        Buffer {
            bytes,
            start,
            end: start,
            home: Arc::clone(&self.shelf),
        }
    }

    /// The number of bytes each buffer can hold, head room included.
    pub fn buffer_size(&self) -> usize {
        self.shelf.size
    }

    /// The number of buffers that lie ready.
    pub fn idle(&self) -> usize {
        self.shelf.free.len()
    }

    /// Frees the buffers that were never needed since the last call.
    ///
    /// Called every few seconds, it leaves the pool with what the busiest moment between two calls took.
    pub fn trim(&self) {
        for _ in 0..self.shelf.fewest.load(Ordering::Relaxed) {
            drop(self.shelf.free.pop());
        }
        self.shelf.fewest.store(self.idle(), Ordering::Relaxed);
    }
}

impl Shelf {
    fn take(&self) -> Option<Vec<u8>> {
        let bytes = self.free.pop();
        let left = self.free.len();
        if left < self.fewest.load(Ordering::Relaxed) {
            self.fewest.store(left, Ordering::Relaxed);
        }

        bytes
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.shelf.size)
            .field("idle", &self.idle())
            .finish()
    }
}

/// A piece of pooled memory: contents between free room in front and behind.
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    home: Arc<Shelf>,
}

impl Buffer {
    /// Grows the contents by `n` bytes at the end and returns those; `None`, and no change, if they don't fit.
    ///
    /// The new bytes hold arbitrary values until the caller writes them.
    pub fn extend(&mut self, n: usize) -> Option<&mut [u8]> {
        let end = self.end.checked_add(n)?;
        if end > self.bytes.len() {
            if end > self.home.size {
                return None;
            }
            self.bytes.resize(end, 0);
        }
        let tail = self.bytes.get_mut(self.end..end)?;
        self.end = end;

        Some(tail)
    }

    /// Grows the contents by `n` bytes in front and returns those; `None`, and no change, if there is no room.
    pub fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        let start = self.start.checked_sub(n)?;
        let head = self.bytes.get_mut(start..self.start)?;
        self.start = start;

        Some(head)
    }

    /// Keeps the first `len` bytes of the contents; no change if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.end = self.start + len;
        }
    }

    /// The number of bytes that [`extend`](Self::extend) can still add.
    pub fn spare(&self) -> usize {
        self.home.size - self.end
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // A full pool lets the memory go.
        drop(self.home.free.push(bytes));
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_grow_at_both_ends() {
        let pool = Pool::new(16, 2);
        let mut buffer = pool.take(4);

        buffer.extend(3).unwrap().copy_from_slice(b"abc");
        buffer.prepend(2).unwrap().copy_from_slice(b"hi");
        assert_eq!(&*buffer, b"hiabc");

        assert!(buffer.prepend(3).is_none(), "only two bytes are left");
        assert!(buffer.extend(10).is_none(), "only nine bytes are left");
        assert_eq!(&*buffer, b"hiabc");

        buffer.truncate(3);
        assert_eq!(&*buffer, b"hia");
    }

    #[test]
    fn dropped_buffers_come_back_up_to_the_limit() {
        let pool = Pool::new(8, 2);
        let taken = [pool.take(0), pool.take(0), pool.take(0)];
        assert_eq!(pool.idle(), 0);

        drop(taken);
        assert_eq!(pool.idle(), 2);
    }

    #[test]
    fn trimming_keeps_what_the_busiest_moment_needed() {
        let pool = Pool::new(8, 16);
        let use_at_once = |n: usize| drop((0..n).map(|_| pool.take(0)).collect::<Vec<_>>());

        let trimmed = || {
            pool.trim();
            pool.idle()
        };

        use_at_once(10);
        assert_eq!(trimmed(), 10, "all were needed");
        use_at_once(3);
        use_at_once(4);
        use_at_once(2);
        assert_eq!(trimmed(), 4);
        use_at_once(4);
        assert_eq!(trimmed(), 4, "a steady load");
        assert_eq!(trimmed(), 0, "no load at all");
    }

    #[test]
    fn buffers_in_use_while_trimmed_come_back() {
        let pool = Pool::new(8, 16);
        let held = [pool.take(0), pool.take(0)];
        pool.trim();
        drop(held);
        pool.trim();

        assert_eq!(pool.idle(), 2, "they were in use");
    }

    #[test]
    fn contents_too_large_for_the_pool_are_refused() {
        let pool = Pool::new(4, 1);

        assert!(pool.copy(b"12345").is_none());
        assert_eq!(&*pool.copy(b"1234").unwrap(), b"1234");
    }
}
