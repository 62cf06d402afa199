//! Who comes next in a round robin that lets newcomers go first (RFC 8290 §4.2).

use std::collections::VecDeque;

/// Who comes next: those that had nothing waiting, then the others, round and round.
#[derive(Debug)]
pub(super) struct Turns<T = usize> {
    pub(super) new: VecDeque<T>,
    old: VecDeque<T>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            new: VecDeque::new(),
            old: VecDeque::new(),
        }
    }
}

impl<T: Copy> Turns<T> {
    pub(super) fn front(&self) -> Option<T> {
        self.new.front().or_else(|| self.old.front()).copied()
    }

    /// The one in front has had its turn.
    pub(super) fn rotate(&mut self) {
        let front = self.new.pop_front().or_else(|| self.old.pop_front());
        self.old.extend(front);
    }

    /// The one in front has nothing left; whether it is gone. One that was new waits among the others for a round, or it
    /// could come back as new for ever and starve them (RFC 8290 §4.2).
    pub(super) fn leave(&mut self) -> bool {
        if !self.new.is_empty() && !self.old.is_empty() {
            self.rotate();
            return false;
        }
        if self.new.pop_front().is_none() {
            self.old.pop_front();
        }

        true
    }
}
