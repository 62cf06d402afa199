//! Memory for packets: pools of equal buffers, with room in front for headers that come later.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

/// Hands out buffers of one size and takes them back when they are dropped.
///
/// Cloning a pool is cheap; the clones share the same free buffers.
#[derive(Clone)]
pub struct Pool {
    free: Arc<ArrayQueue<Box<[u8]>>>,
    size: usize,
}

impl Pool {
    /// Creates a pool of buffers of `size` bytes that keeps at most `keep` of them when they are not in use.
    pub fn new(size: usize, keep: usize) -> Self {
        Self {
            free: Arc::new(ArrayQueue::new(keep.max(1))),
            size,
        }
    }

    /// Takes an empty buffer with `headroom` bytes free in front of its contents.
    ///
    /// What the memory held before is not cleared; it can't be seen through the buffer until it is overwritten.
    pub fn take(&self, headroom: usize) -> Buffer {
        let bytes = self
            .free
            .pop()
            .unwrap_or_else(|| vec![0; self.size].into_boxed_slice());
        let start = headroom.min(bytes.len());

        Buffer {
            bytes,
            start,
            end: start,
            home: Arc::clone(&self.free),
        }
    }

    /// Takes a buffer that holds a copy of `contents`; `None` if they are larger than the pool's buffers.
    pub fn copy(&self, contents: &[u8]) -> Option<Buffer> {
        let mut buffer = self.take(0);
        buffer.extend(contents.len())?.copy_from_slice(contents);

        Some(buffer)
    }

    /// The number of bytes each buffer can hold, head room included.
    pub fn buffer_size(&self) -> usize {
        self.size
    }

    /// The number of buffers that lie ready.
    pub fn idle(&self) -> usize {
        self.free.len()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.size)
            .field("idle", &self.idle())
            .finish()
    }
}

/// A piece of pooled memory: contents between free room in front and behind.
pub struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    home: Arc<ArrayQueue<Box<[u8]>>>,
}

impl Buffer {
    /// Grows the contents by `n` bytes at the end and returns those; `None`, and no change, if they don't fit.
    ///
    /// The new bytes hold arbitrary values until the caller writes them.
    pub fn extend(&mut self, n: usize) -> Option<&mut [u8]> {
        let end = self.end.checked_add(n)?;
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
        self.bytes.len() - self.end
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
        // A full pool lets the memory go: that is how it shrinks after a load.
        drop(self.home.push(bytes));
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
    fn contents_too_large_for_the_pool_are_refused() {
        let pool = Pool::new(4, 1);

        assert!(pool.copy(b"12345").is_none());
        assert_eq!(&*pool.copy(b"1234").unwrap(), b"1234");
    }
}
