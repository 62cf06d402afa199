//! Thousands of clients: each joins, asks when it is told to, notes what it hears, and comes back when it was cut off.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use connlib_os::random;
use connlib_wire::id::ResourceId;
use connlib_wire::portal::client::{FromPortal, RequestAuthorization, TOPIC, ToPortal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::portal::{Contact, Portal, RESOURCE};
use crate::socket::{Heard, Socket};

/// Devices that share a token: a portal lets one token connect a thousand times from one address at once.
const PER_TOKEN: usize = 50;

/// So many connect at once while the crowd grows.
const AT_ONCE: usize = 8;

/// The delays of those who were cut off: the first, what each is longer by, and the longest (portal-protocol.md §3.4).
const FIRST_DELAY: f64 = 0.5;
const FACTOR: f64 = 1.5;
const LONGEST_DELAY: f64 = 60.0;

pub(crate) struct Crowd {
    shared: Rc<Shared>,
    tokens: Vec<Rc<str>>,
    members: RefCell<Vec<mpsc::UnboundedSender<()>>>,
}

struct Shared {
    contact: Contact,
    joining: Semaphore,
    joined: Cell<usize>,
    joins: RefCell<Vec<Duration>>,
    attempts: RefCell<Vec<Instant>>,
    answers: RefCell<Vec<Duration>>,
    revoked: RefCell<Vec<Instant>>,
}

struct Member {
    shared: Rc<Shared>,
    token: Rc<str>,
    id: String,
    orders: mpsc::UnboundedReceiver<()>,
    resource: Option<ResourceId>,
    asked_at: Option<Instant>,
}

impl Crowd {
    /// A crowd that may grow to `count`; none has come yet.
    pub(crate) fn new(portal: &Portal, count: usize) -> Self {
        let token = |_| portal.token(&["--client", "alice"]).into();
        let tokens = (0..count.div_ceil(PER_TOKEN)).map(token).collect();
        let shared = Shared {
            contact: portal.contact(),
            joining: Semaphore::new(AT_ONCE),
            joined: Cell::default(),
            joins: RefCell::default(),
            attempts: RefCell::default(),
            answers: RefCell::default(),
            revoked: RefCell::default(),
        };

        Self {
            shared: Rc::new(shared),
            tokens,
            members: RefCell::default(),
        }
    }

    /// More clients come, until there are so many.
    pub(crate) async fn grow_to(&self, count: usize) {
        let there = self.members.borrow().len();
        for number in there..count {
            let (orders, received) = mpsc::unbounded_channel();
            let member = Member {
                shared: Rc::clone(&self.shared),
                token: Rc::clone(&self.tokens[number / PER_TOKEN]),
                id: format!("device-{number}"),
                orders: received,
                resource: None,
                asked_at: None,
            };
            self.members.borrow_mut().push(orders);
            spawn_local(member.live());
        }
        self.until(|crowd| crowd.joined() == count).await;
    }

    /// One of them asks for access.
    pub(crate) fn ask(&self, number: usize) {
        self.members.borrow()[number].send(()).unwrap();
    }

    /// Waits until something holds; three minutes are too long.
    pub(crate) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(
                began.elapsed() < Duration::from_secs(180),
                "{} joined, {} answers, {} revoked",
                self.joined(),
                self.answered(),
                self.revoked()
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn joined(&self) -> usize {
        self.shared.joined.get()
    }

    pub(crate) fn answered(&self) -> usize {
        self.shared.answers.borrow().len()
    }

    pub(crate) fn revoked(&self) -> usize {
        self.shared.revoked.borrow().len()
    }

    pub(crate) fn take_joins(&self) -> Vec<Duration> {
        self.shared.joins.take()
    }

    pub(crate) fn take_attempts(&self) -> Vec<Instant> {
        self.shared.attempts.take()
    }

    pub(crate) fn take_answers(&self) -> Vec<Duration> {
        self.shared.answers.take()
    }

    pub(crate) fn take_revoked(&self) -> Vec<Instant> {
        self.shared.revoked.take()
    }
}

impl Member {
    async fn live(mut self) {
        let shared = Rc::clone(&self.shared);
        let mut socket = {
            let _permit = shared.joining.acquire().await.unwrap();
            let began = Instant::now();
            let socket = self.join().await.expect("a portal");
            shared.joins.borrow_mut().push(began.elapsed());
            socket
        };
        loop {
            self.stay(&mut socket).await;
            shared.joined.set(shared.joined.get() - 1);
            let mut delay = FIRST_DELAY;
            socket = loop {
                sleep(Duration::from_secs_f64(delay * jitter())).await;
                if let Some(socket) = self.join().await {
                    break socket;
                }
                delay = (delay * FACTOR).min(LONGEST_DELAY);
            };
        }
    }

    /// Connects, and hears what there is.
    async fn join(&mut self) -> Option<Socket> {
        let shared = &self.shared;
        shared.attempts.borrow_mut().push(Instant::now());
        let mut socket = Socket::open(&shared.contact, TOPIC, &self.token, &self.id).await?;
        let init = socket.hear().await?;
        let FromPortal::Init(init) = FromPortal::parse(&init.event, &init.payload).unwrap() else {
            panic!("{} before init", init.event);
        };
        let resources = init.resources.iter();
        self.resource = (resources.map(|resource| (resource.name(), resource.id())))
            .find_map(|(name, id)| (name == RESOURCE).then_some(id));
        shared.joined.set(shared.joined.get() + 1);

        Some(socket)
    }

    async fn stay(&mut self, socket: &mut Socket) {
        loop {
            tokio::select! {
                order = self.orders.recv() => {
                    if order.is_none() || self.ask(socket).await.is_none() {
                        return;
                    }
                }
                heard = socket.hear() => match heard {
                    Some(heard) => self.note(&heard),
                    None => return,
                }
            }
        }
    }

    async fn ask(&mut self, socket: &mut Socket) -> Option<()> {
        self.asked_at = Some(Instant::now());
        let request = ToPortal::RequestAuthorization(RequestAuthorization {
            resource_id: self.resource?,
            connected_gateway_ids: vec![],
            ipv4: None,
            ipv6: None,
        });

        socket.say(request.event(), &request).await
    }

    fn note(&mut self, heard: &Heard) {
        match heard.event.as_str() {
            "authorization_created" => {
                let asked_at = self.asked_at.take().expect("a request");
                let answers = &self.shared.answers;
                answers.borrow_mut().push(asked_at.elapsed());
            }
            "authorization_creation_failed" => panic!("refused: {}", heard.payload),
            "resource_deleted" => {
                self.shared.revoked.borrow_mut().push(Instant::now());
            }
            _ => {}
        }
    }
}

/// From half to one and a half.
fn jitter() -> f64 {
    let [byte, ..]: [u8; 32] = random::seed().unwrap();

    0.5 + f64::from(byte) / 256.0
}
