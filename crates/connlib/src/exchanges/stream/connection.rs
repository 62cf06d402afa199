//! One connection: many messages on their way, answers in any order.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::pending;
use std::io;
use std::time::Duration;

use connlib_tunnel::dns::ExchangeError;
use connlib_wire::dns::is_answer_to;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, sleep_until, timeout};

use super::super::ask::{Ask, Inbox};
use super::Unsent;
use crate::dial::Transport;

/// An open connection.
pub(super) struct Connection {
    reader: ReadHalf<Box<dyn Transport>>,
    writer: WriteHalf<Box<dyn Transport>>,
    /// What came, up to the end of a message that is not whole.
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Whether all that was written left, as TLS keeps things back.
    is_flushed: bool,
    /// What is not sent: as much as doesn't fit beside what waits.
    unsent: VecDeque<Unsent>,
    /// What was sent, by its id on this connection.
    waiting: BTreeMap<u16, Waiting>,
    next_id: u16,
    /// When the last answer came, or the connection was opened.
    answered_at: Instant,
    /// Since when nothing waits, if nothing does.
    idle_since: Instant,
}

/// A message that is on its way, with an id of the connection's.
struct Waiting {
    ask: Ask,
    /// Its own.
    id: [u8; 2],
    sent_at: Instant,
    tries: u32,
}

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum End {
    /// Nobody used it.
    Idle,
    /// Nobody can use it any more.
    Abandoned,
    /// The server closed it.
    Closed,
    /// Something was sent and nothing came back: a firewall may have forgotten the connection.
    Mute,
    /// The network ended it.
    Broken(io::Error),
}

/// How many messages may be on their way at once.
const MAX_WAITING: usize = 100;

/// With more than that to be written no more messages are taken: the server doesn't read.
const MAX_OUTGOING: usize = 64 * 1024;

/// How long a connection is kept for the next message.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long saying goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// How much is read at once, at least.
const READ_SIZE: usize = 4_096;

impl Connection {
    pub(super) fn new(stream: Box<dyn Transport>, unsent: VecDeque<Unsent>) -> Self {
        let (reader, writer) = split(stream);
        let now = Instant::now();

        Self {
            reader,
            writer,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            is_flushed: true,
            unsent,
            waiting: BTreeMap::new(),
            next_id: 0,
            answered_at: now,
            idle_since: now,
        }
    }

    /// Asks what is in the inbox until the connection is over.
    pub(super) async fn run(&mut self, inbox: &mut Inbox) -> End {
        loop {
            self.send_what_fits();
            self.incoming.reserve(READ_SIZE);
            let wakes_at = self.wakes_at();
            let end = tokio::select! {
                read = self.reader.read_buf(&mut self.incoming) => self.handle_read(read),
                written = write(&mut self.writer, &self.outgoing, self.is_flushed) => {
                    self.handle_written(written)
                }
                ask = inbox.recv() => match ask {
                    Some(ask) => {
                        self.unsent.push_back(Unsent { ask, tries: 0 });
                        None
                    }
                    None => Some(End::Abandoned),
                },
                () = sleep_until(wakes_at) => self.handle_time(),
            };
            let Some(end) = end else {
                continue;
            };
            if matches!(end, End::Idle | End::Abandoned) {
                let _ = timeout(GOODBYE_TIMEOUT, self.writer.shutdown()).await;
            }

            return end;
        }
    }

    /// What is left to be asked.
    pub(super) fn into_unanswered(self) -> impl Iterator<Item = Unsent> {
        let sent = self.waiting.into_values().map(|waiting| {
            let Waiting {
                mut ask, id, tries, ..
            } = waiting;
            set_id(&mut ask.message, id);
            Unsent { ask, tries }
        });

        sent.chain(self.unsent)
            .filter(|unsent| unsent.ask.is_awaited())
    }

    fn send_what_fits(&mut self) {
        while self.waiting.len() < MAX_WAITING
            && self.outgoing.len() <= MAX_OUTGOING
            && let Some(Unsent { mut ask, tries }) = self.unsent.pop_front()
        {
            if !ask.is_awaited() {
                continue;
            }
            let id = self.free_id();
            let own = set_id(&mut ask.message, id.to_be_bytes());
            put_frame(&mut self.outgoing, &ask.message);
            let waiting = Waiting {
                ask,
                id: own,
                sent_at: Instant::now(),
                tries: tries + 1,
            };
            self.waiting.insert(id, waiting);
        }
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            // Far fewer wait than there are ids.
            if !self.waiting.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    fn handle_read(&mut self, read: io::Result<usize>) -> Option<End> {
        match read {
            Ok(0) => return Some(End::Closed),
            Ok(_) => {}
            Err(error) => return Some(End::Broken(error)),
        }
        let mut rest = self.incoming.as_slice();
        while let Some((frame, behind)) = take_frame(rest) {
            if take_answer(&mut self.waiting, frame) {
                self.answered_at = Instant::now();
                self.idle_since = self.answered_at;
            } else {
                tracing::trace!(len = frame.len(), "Ignored a frame that is no answer");
            }
            rest = behind;
        }
        let used = self.incoming.len() - rest.len();
        self.incoming.drain(..used);

        None
    }

    fn handle_written(&mut self, written: io::Result<usize>) -> Option<End> {
        match written {
            Ok(0) => self.is_flushed = true,
            Ok(len) => {
                self.outgoing.drain(..len);
                self.is_flushed = false;
            }
            Err(error) => return Some(End::Broken(error)),
        }

        None
    }

    fn handle_time(&mut self) -> Option<End> {
        let now = Instant::now();
        let mut is_mute = false;
        for (_, late) in self
            .waiting
            .extract_if(.., |_, waiting| waiting.ask.deadline <= now)
        {
            is_mute |= late.sent_at >= self.answered_at;
            late.ask.answer(Err(ExchangeError::TimedOut));
            self.idle_since = now;
        }
        if is_mute {
            return Some(End::Mute);
        }
        // Nobody waits for those any longer.
        self.unsent.retain(|unsent| unsent.ask.deadline > now);
        let is_idle = self.waiting.is_empty() && self.unsent.is_empty();

        (is_idle && now >= self.idle_since + IDLE_TIMEOUT).then_some(End::Idle)
    }

    fn wakes_at(&self) -> Instant {
        let waiting = self.waiting.values().map(|waiting| &waiting.ask);
        let unsent = self.unsent.iter().map(|unsent| &unsent.ask);

        waiting
            .chain(unsent)
            .map(|ask| ask.deadline)
            .min()
            .unwrap_or_else(|| self.idle_since + IDLE_TIMEOUT)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("nobody used the connection"),
            Self::Abandoned => f.write_str("the connection was given up"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Mute => f.write_str("nothing came back by the connection"),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
        }
    }
}

/// Writes a part, or pushes on what is kept back; with nothing to do it never ends.
async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    outgoing: &[u8],
    is_flushed: bool,
) -> io::Result<usize> {
    if !outgoing.is_empty() {
        return match writer.write(outgoing).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            len => Ok(len),
        };
    }
    if is_flushed {
        return pending().await;
    }

    writer.flush().await.map(|()| 0)
}

/// Hands an answer to who waits for it, if anybody does.
fn take_answer(waiting: &mut BTreeMap<u16, Waiting>, frame: &[u8]) -> bool {
    let Some(&id) = frame.first_chunk() else {
        return false;
    };
    let id = u16::from_be_bytes(id);
    if !waiting
        .get(&id)
        .is_some_and(|waiting| is_answer_to(&waiting.ask.message, frame))
    {
        return false;
    }
    if let Some(Waiting { ask, id, .. }) = waiting.remove(&id) {
        let mut answer = frame.to_vec();
        set_id(&mut answer, id);
        ask.answer(Ok(answer));
    }

    true
}

/// The first message, and what is behind it.
fn take_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;

    rest.split_at_checked(u16::from_be_bytes(*len).into())
}

/// Appends a message behind its length. No message is longer than the length can tell.
fn put_frame(bytes: &mut Vec<u8>, message: &[u8]) {
    let len = u16::try_from(message.len()).unwrap_or(u16::MAX);
    bytes.extend(len.to_be_bytes());
    bytes.extend(message.iter().take(len.into()));
}

/// Changes the id of a message, and returns the old one.
fn set_id(message: &mut [u8], id: [u8; 2]) -> [u8; 2] {
    match message.first_chunk_mut() {
        Some(place) => std::mem::replace(place, id),
        None => id,
    }
}

#[cfg(test)]
mod tests {
    use connlib_wire::dns::{Name, Query, RecordType};
    use tokio::io::duplex;
    use tokio::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_read_is_not_written_to_without_end() {
        const LEN: usize = 10_000;

        let (ours, mut theirs) = duplex(16);
        let mut outcomes = Vec::new();
        let unsent = (0..50).map(|_| {
            let (ask, outcome) = Ask::new(vec![0; LEN], Instant::now() + LONG);
            outcomes.push(outcome);
            Unsent { ask, tries: 0 }
        });
        let mut connection = Connection::new(Box::new(ours), unsent.collect());
        let (_sender, mut inbox) = mpsc::unbounded_channel();
        let running = connection.run(&mut inbox);
        assert!(timeout(Duration::from_secs(1), running).await.is_err());
        // The last one of them is whole.
        assert_eq!(connection.waiting.len(), MAX_OUTGOING / LEN + 1);
        assert_eq!(connection.unsent.len(), 50 - connection.waiting.len());

        // It begins to read, and all follow.
        let mut read = vec![0; (2 + LEN) * 50];
        tokio::select! {
            end = connection.run(&mut inbox) => panic!("it ended: {end}"),
            result = theirs.read_exact(&mut read) => drop(result.unwrap()),
        }
        assert_eq!(connection.waiting.len(), 50);

        // What is neither answered nor sent any more ends in time.
        let end = connection.run(&mut inbox).await;
        assert!(matches!(end, End::Mute), "{end}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_never_sent_keeps_no_connection_busy() {
        let (ours, theirs) = duplex(16);
        let unsent = |len: usize, within: Duration| {
            let (ask, outcome) = Ask::new(vec![0; len], Instant::now() + within);
            (Unsent { ask, tries: 0 }, outcome)
        };
        let (first, _first) = unsent(40_000, LONG);
        let (second, _second) = unsent(40_000, LONG);
        let (third, _third) = unsent(12, LONG * 2);
        let mut connection = Connection::new(Box::new(ours), [first, second, third].into());
        let (_sender, mut inbox) = mpsc::unbounded_channel();
        let running = connection.run(&mut inbox);
        assert!(timeout(Duration::from_secs(1), running).await.is_err());
        assert_eq!((connection.waiting.len(), connection.unsent.len()), (2, 1));

        // An answer to something else: the connection lives, though the server doesn't read.
        connection.answered_at = Instant::now();
        tokio::time::advance(LONG).await;
        assert!(connection.handle_time().is_none());
        assert_eq!((connection.waiting.len(), connection.unsent.len()), (0, 1));
        assert!(connection.wakes_at() > Instant::now(), "it would spin");

        tokio::time::advance(LONG).await;
        let end = connection.handle_time();
        assert!(matches!(end, Some(End::Idle)), "{end:?}");
        drop(theirs);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_come_in_pieces_and_be_as_long_as_can_be() {
        let (ours, mut theirs) = duplex(7);
        let name = Name::parse("a.test").unwrap();
        let query = Query::new(&name, RecordType::A).to_upstream(1, false);
        let (ask, outcome) = Ask::new(query, Instant::now() + LONG);
        let unsent = VecDeque::from([Unsent { ask, tries: 0 }]);
        let mut connection = Connection::new(Box::new(ours), unsent);
        let (_sender, mut inbox) = mpsc::unbounded_channel();
        let answering = async {
            let len = theirs.read_u16().await.unwrap();
            let mut answer = vec![0; len.into()];
            theirs.read_exact(&mut answer).await.unwrap();
            // A response (RFC 1035 §4.1.1).
            answer[2] |= 0x80;
            answer.resize(65_535, 0);
            theirs.write_u16(u16::MAX).await.unwrap();
            theirs.write_all(&answer).await.unwrap();
            outcome.await.unwrap().unwrap().len()
        };

        tokio::select! {
            end = connection.run(&mut inbox) => panic!("it ended: {end}"),
            len = answering => assert_eq!(len, 65_535),
        }
    }
}
