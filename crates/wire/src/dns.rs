//! DNS messages: what is asked, what is answered, and what must be changed between an asker and a server (RFC 1035).
//!
//! ```text
//! asker ── Query::parse ──► Query ── to_upstream ──► server
//!    ▲                        │                        │
//!    ├─────────── respond ◄───┤                        │
//!    └── Answer::for_asker ◄──┴──── Answer::parse ◄────┘
//! ```
//!
//! Every record of a message is walked when it is parsed, so that what comes later neither fails nor walks again.
//! Whoever relays an answer asks [`Answer::answers`] first: a parsed answer is well formed, not ours.

mod answer;
mod code;
mod message;
mod name;
mod query;
mod respond;

pub use answer::{Answer, AnswerError};
pub use code::{Rcode, RecordType, class};
pub use message::Malformed;
pub(crate) use name::split_labels;
pub use name::{Name, NameError};
pub use query::{Edns, Query, QueryError};
pub use respond::{Data, ExtendedError, respond};

/// The largest message we ask for and say we take by UDP (client.md §16; the DNS flag day of 2020).
pub const UDP_SIZE: u16 = 1_232;

/// The largest answer that one tunnelled UDP packet carries, in bytes (client.md §0).
pub const MAX_UDP_ANSWER: usize = 1_212;

/// The largest message, in bytes: its length has 16 bits over TCP.
pub const MAX_MESSAGE: usize = 65_535;

/// Whether `message` is an answer to the request `sent`: id, opcode, and one question of the same name, type and class.
///
/// A quick check for whoever listens on a socket; the records aren't looked at.
pub fn is_answer_to(sent: &[u8], message: &[u8]) -> bool {
    use message::{Header, flag, one_question};
    let (Some(asked), Some(answered)) = (Header::read(sent), Header::read(message)) else {
        return false;
    };
    let directions = (asked.flags & flag::QR, answered.flags & flag::QR);
    if directions != (0, flag::QR) || asked.id != answered.id || asked.opcode() != answered.opcode()
    {
        return false;
    }

    match (one_question(sent, &asked), one_question(message, &answered)) {
        (Some(asked), Some(answered)) => message::same_question(asked, answered),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
