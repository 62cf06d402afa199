//! The one task that owns the state and the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::clock;
use crate::admin::{Answer, Failure, Known, Request, Response, perform};
use crate::audit::{Entry, Who};
use crate::model::Edit;
use crate::state::{Admission, Connect, Event, Refused, SocketId, State};
use crate::store::{BackupJob, Store, StoreError};

/// How many commands wait for the core before those who send them wait.
const COMMANDS: usize = 1024;

/// How many commands are taken before their edits are stored together.
const BATCH: usize = 64;

/// How many messages wait for a socket before it is closed as too slow.
const OUTGOING: usize = 1024;

/// How many bytes of messages wait for a socket before another closes it as too slow.
const OUTGOING_BYTES: usize = 8 * 1024 * 1024;

/// How soon to try again what could not be stored.
const STORE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The close code of a portal that restarts (RFC 6455's registry).
const SERVICE_RESTART: u16 = 1012;

/// What the core is told.
#[derive(Debug)]
enum Command {
    Check {
        connect: Connect,
        answer: oneshot::Sender<Result<(), Rejected>>,
    },
    Connect {
        connect: Connect,
        answer: oneshot::Sender<Result<Opened, Rejected>>,
    },
    Message {
        socket: SocketId,
        text: String,
    },
    Pong {
        socket: SocketId,
    },
    Disconnected {
        socket: SocketId,
    },
    Admin {
        uid: u32,
        request: Request,
        answer: AdminAnswer,
    },
    Stop {
        answer: oneshot::Sender<()>,
    },
}

type AdminAnswer = oneshot::Sender<Result<Response, Failure>>;

/// What became of an admin's request.
enum Done {
    Answered(Response),
    /// The answer is good once the job is done.
    Begun(BackupJob, Response),
}

/// A socket that the state knows.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) socket: SocketId,
    /// What the peer is to be told.
    pub(super) outgoing: OutgoingReceiver,
}

/// What a peer is to be told. The end of it is the end of the socket.
#[derive(Debug)]
pub(super) struct OutgoingReceiver {
    messages: mpsc::Receiver<Outgoing>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl OutgoingReceiver {
    pub(super) async fn recv(&mut self) -> Option<Outgoing> {
        let message = self.messages.recv().await?;
        self.waiting_bytes
            .fetch_sub(message.size(), Ordering::Relaxed);

        Some(message)
    }
}

/// The way to a socket.
struct OutgoingSender {
    messages: mpsc::Sender<Outgoing>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl OutgoingSender {
    /// Queues a message, or says that too much waits already. A message alone may be of any size.
    fn try_send(&self, message: Outgoing) -> Result<(), TooSlow> {
        if self.waiting_bytes.load(Ordering::Relaxed) > OUTGOING_BYTES {
            return Err(TooSlow);
        }
        self.waiting_bytes
            .fetch_add(message.size(), Ordering::Relaxed);

        self.messages.try_send(message).map_err(|_| TooSlow)
    }
}

/// A socket does not read, or is gone.
struct TooSlow;

/// What a peer is told.
#[derive(Debug)]
pub(super) enum Outgoing {
    Text(String),
    Ping,
    Close { code: u16, reason: &'static str },
}

impl Outgoing {
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Ping => 0,
            Self::Close { reason, .. } => reason.len(),
        }
    }
}

/// Why a socket isn't opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejected {
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store doesn't work, or the portal stops.
    #[error("The portal can't take connections now")]
    Unavailable,
}

/// The way to the core. The core ends when all are gone.
#[derive(Clone, Debug)]
pub(super) struct CoreHandle {
    commands: mpsc::Sender<Command>,
}

impl CoreHandle {
    /// Whether the token of `connect` is good.
    pub(super) async fn check(&self, connect: Connect) -> Result<(), Rejected> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Check { connect, answer }).await;

        answered.await.unwrap_or(Err(Rejected::Unavailable))
    }

    /// Opens a socket. Whoever gets one reports its end.
    pub(super) async fn connect(&self, connect: Connect) -> Result<Opened, Rejected> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Connect { connect, answer }).await;

        answered.await.unwrap_or(Err(Rejected::Unavailable))
    }

    pub(super) async fn message(&self, socket: SocketId, text: String) {
        self.tell(Command::Message { socket, text }).await;
    }

    pub(super) async fn pong(&self, socket: SocketId) {
        self.tell(Command::Pong { socket }).await;
    }

    pub(super) async fn disconnected(&self, socket: SocketId) {
        self.tell(Command::Disconnected { socket }).await;
    }

    /// Asks what the admin `uid` asks. `None` if the portal stops.
    pub(super) async fn admin(
        &self,
        uid: u32,
        request: Request,
    ) -> Option<Result<Response, Failure>> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Admin {
            uid,
            request,
            answer,
        };
        self.tell(command).await;

        answered.await.ok()
    }

    /// Ends the core, and waits until it said goodbye.
    pub(super) async fn stop(&self) {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Stop { answer }).await;
        // The core may have ended before; it is ended either way.
        let _ = answered.await;
    }

    async fn tell(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("The portal has stopped");
        }
    }
}

/// The state, the store, and the ways to the sockets.
pub(super) struct Core {
    state: State,
    store: Box<dyn Store>,
    commands: mpsc::Receiver<Command>,
    sockets: BTreeMap<SocketId, OutgoingSender>,
    /// Peers that wait until the state has decided.
    waiting: BTreeMap<SocketId, oneshot::Sender<Result<Opened, Rejected>>>,
    last_socket: u64,
    /// What the state has and the store hasn't, in order.
    unwritten: Vec<Edit>,
    /// The audit's entries about these.
    unwritten_entries: Vec<Entry>,
}

impl Core {
    pub(super) fn new(state: State, store: Box<dyn Store>) -> (Self, CoreHandle) {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let core = Self {
            state,
            store,
            commands,
            sockets: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last_socket: 0,
            unwritten: vec![],
            unwritten_entries: vec![],
        };

        (core, CoreHandle { commands: sender })
    }

    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            self.settle();
            let wake_at = self.wake_at();
            let asleep = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };

            tokio::select! {
                count = self.commands.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                }
                () = asleep => {}
            }
            for command in batch.drain(..) {
                if let Command::Stop { answer } = command {
                    self.say_goodbye();
                    // Nobody may be waiting any longer.
                    let _ = answer.send(());
                    return;
                }
                self.handle(command);
            }
            let (now, unix) = (clock::now(), clock::unix());
            if self.state.poll_timeout().is_some_and(|(at, _)| at <= now) {
                self.state.handle_timeout(now, unix);
            }
        }
    }

    fn handle(&mut self, command: Command) {
        let (now, unix) = (clock::now(), clock::unix());
        match command {
            Command::Check { connect, answer } => {
                let result = self.state.check_token(unix, &connect);
                let _ = answer.send(result.map_err(Rejected::from));
            }
            Command::Connect { connect, answer } => self.connect(&connect, answer),
            Command::Message { socket, text } => {
                self.state.handle_message(now, unix, socket, &text);
            }
            Command::Pong { socket } => self.state.handle_pong(now, unix, socket),
            Command::Disconnected { socket } => self.disconnect(socket),
            Command::Admin {
                uid,
                request,
                answer,
            } => {
                self.administer(uid, &request, answer);
            }
            // Taken care of before.
            Command::Stop { .. } => {}
        }
    }

    fn connect(&mut self, connect: &Connect, answer: oneshot::Sender<Result<Opened, Rejected>>) {
        self.last_socket += 1;
        let socket = SocketId(self.last_socket);
        self.waiting.insert(socket, answer);
        if !self.unwritten.is_empty() {
            return self.answer(socket, Err(Rejected::Unavailable));
        }
        let admitted = self
            .state
            .handle_connect(clock::now(), clock::unix(), socket, connect);
        match admitted {
            Ok(Admission::Opened) => self.answer(socket, Ok(())),
            Ok(Admission::Waiting) => {}
            Err(refused) => self.answer(socket, Err(refused.into())),
        }
    }

    /// Tells a peer what became of it. One that left while it waited is gone.
    fn answer(&mut self, socket: SocketId, result: Result<(), Rejected>) {
        let Some(answer) = self.waiting.remove(&socket) else {
            return;
        };
        let is_open = result.is_ok();
        let result = result.map(|()| self.open(socket));
        if answer.send(result).is_err() && is_open {
            self.disconnect(socket);
        }
    }

    /// Makes the way to a socket that the state has opened.
    fn open(&mut self, socket: SocketId) -> Opened {
        let (sender, messages) = mpsc::channel(OUTGOING);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let outgoing = OutgoingReceiver {
            messages,
            waiting_bytes: Arc::clone(&waiting_bytes),
        };
        let sender = OutgoingSender {
            messages: sender,
            waiting_bytes,
        };
        self.sockets.insert(socket, sender);

        Opened { socket, outgoing }
    }

    fn disconnect(&mut self, socket: SocketId) {
        self.sockets.remove(&socket);
        self.state
            .handle_disconnect(clock::now(), clock::unix(), socket);
    }

    /// Answers an admin. A copy of the database takes its time, so that doesn't happen here.
    fn administer(&mut self, uid: u32, request: &Request, answer: AdminAnswer) {
        let result = match self.perform(uid, request) {
            Ok(Done::Answered(response)) => Ok(response),
            Ok(Done::Begun(job, response)) => {
                let work = move || {
                    let copied = job.run().map(|()| response);
                    let _ = answer.send(copied.map_err(no_backup));
                };
                tokio::task::spawn_blocking(work);
                return;
            }
            Err(failure) => Err(failure),
        };
        // An admin that left is told nothing.
        let _ = answer.send(result);
    }

    /// Stores first, then tells: what an admin was told is true after a loss of power too.
    fn perform(&mut self, uid: u32, request: &Request) -> Result<Done, Failure> {
        let not_stored = |problem: String| Failure::NotStored { problem };
        // What the state did before comes before in the store.
        self.store_edits();
        if !self.unwritten.is_empty() {
            let problem = "earlier changes could not be stored either".to_owned();
            return Err(not_stored(problem));
        }
        let unix = clock::unix();
        let mut random = self.state.fork_random();
        let presence = self.state.presence();
        let known = Known {
            directory: self.state.directory(),
            presence: &presence,
            locations: self.state.locations(),
            unix,
        };
        let performed = perform(&known, Who::Admin { uid }, request, &mut random)?;
        if let Answer::Backup(file) = &performed.answer {
            let job = self.store.backup_job(file).map_err(no_backup)?;
            let file = file.clone();
            return Ok(Done::Begun(job, Response::BackedUp { file }));
        }
        let response = performed.answer_from(&mut *self.store).map_err(|error| {
            let problem = error.to_string();
            match matches!(error, StoreError::Unwritable { .. }) {
                true => not_stored(problem),
                false => Failure::NotRead { problem },
            }
        })?;
        if !performed.edits.is_empty() {
            (self.state).handle_edits(clock::now(), unix, &performed.edits);
        }

        Ok(Done::Answered(response))
    }

    /// Stores and sends what waits.
    fn settle(&mut self) {
        self.store_edits();
        while let Some(event) = self.state.poll_event() {
            match event {
                Event::Send { socket, text } => self.send(socket, Outgoing::Text(text)),
                Event::Ping { socket } => self.send(socket, Outgoing::Ping),
                Event::Decided { socket, result } => self.decided(socket, result),
                Event::Close { socket, why } => {
                    let (code, reason) = (why.code(), why.text());
                    self.send(socket, Outgoing::Close { code, reason });
                    self.sockets.remove(&socket);
                }
            }
        }
        // A socket that was too slow may have left edits behind.
        self.store_edits();
    }

    fn decided(&mut self, socket: SocketId, result: Result<(), Refused>) {
        if result.is_ok() && !self.unwritten.is_empty() {
            self.disconnect(socket);
            self.answer(socket, Err(Rejected::Unavailable));
        } else {
            self.answer(socket, result.map_err(Rejected::from));
        }
    }

    fn send(&mut self, socket: SocketId, message: Outgoing) {
        let Some(sender) = self.sockets.get(&socket) else {
            return;
        };
        if sender.try_send(message).is_err() {
            tracing::debug!(?socket, "Closing a socket that is too slow or gone");
            self.disconnect(socket);
        }
    }

    /// Stores what the state did. What can't be stored stays, and keeps new peers out: a device that is forgotten
    /// would come back as another.
    fn store_edits(&mut self) {
        while let Some(edit) = self.state.poll_edit() {
            self.unwritten.push(edit);
        }
        while let Some(entry) = self.state.poll_entry() {
            self.unwritten_entries.push(entry);
        }
        if self.unwritten.is_empty() {
            return;
        }
        let written = (self.store).write(&self.unwritten, &self.unwritten_entries);
        match written {
            Ok(()) => {
                self.unwritten.clear();
                self.unwritten_entries.clear();
            }
            Err(error) => tracing::error!(%error, "Can't store; will try again"),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let timeout = self
            .state
            .poll_timeout()
            .map(|(at, _)| Instant::from_std(at));
        let again = (!self.unwritten.is_empty()).then(|| Instant::now() + STORE_AGAIN_AFTER);

        timeout.into_iter().chain(again).min()
    }

    fn say_goodbye(&mut self) {
        self.settle();
        let close = || Outgoing::Close {
            code: SERVICE_RESTART,
            reason: "the portal stops",
        };
        for sender in self.sockets.values() {
            // One that is too slow for this loses its connection without a word.
            let _ = sender.try_send(close());
        }
        self.sockets.clear();
        // Who waits learns from the end of its channel.
        self.waiting.clear();
    }
}

fn no_backup(error: StoreError) -> Failure {
    Failure::NoBackup {
        problem: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
