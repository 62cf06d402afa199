//! Several servers behind one listen port, each with clients and ports of its own.
//!
//! The kernel gives each client's datagrams to one of the sockets that share the port (SO_REUSEPORT), always the same, so that
//! servers on different threads need to know little of each other: which ports are whose, and who has moved.

use std::time::Instant;

/// The part of the ports that one server of several lends. Each even port and the next one are one server's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share {
    index: u16,
    of: u16,
}

impl Share {
    /// All of them: there is one server.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// The share of server number `index`, counted from 0, of `of` (1 at least).
    pub fn new(index: u16, of: u16) -> Self {
        let of = of.max(1);

        Self {
            index: index % of,
            of,
        }
    }

    pub(crate) fn is_whole(self) -> bool {
        self.of == 1
    }

    pub(crate) fn has(self, port: u16) -> bool {
        (port / 2) % self.of == self.index
    }
}

/// A user who may have one allocation has made it here: other servers shall forget an older one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// Who.
    pub user: String,
    /// Since when.
    pub at: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_one_servers_and_pairs_stay_together() {
        for of in 1..=5 {
            for port in 0..=u16::MAX {
                let owners = (0..of).filter(|index| Share::new(*index, of).has(port));
                assert_eq!(owners.count(), 1, "{port}");
                let share = Share::new(port % of, of);
                assert_eq!(share.has(port & !1), share.has(port | 1), "{port}");
            }
        }
        assert!(Share::WHOLE.is_whole());
        assert_eq!(Share::new(7, 0), Share::WHOLE);
    }
}
