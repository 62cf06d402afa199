use std::path::Path;
use std::sync::atomic::AtomicBool;

use connlib_wire::portal::Generation;
use connlib_wire::portal::phoenix::Framing;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::admin::TokenFor;
use crate::audit::{Filter, Row};
use crate::model::{Directory, TokenKind};
use crate::state::Role;
use crate::store::StoreError;
use crate::store::memory::Memory;
use crate::tests::account;
use crate::token;

/// A store whose disk may be full.
struct Moody {
    memory: Memory,
    is_full: Arc<AtomicBool>,
}

impl Store for Moody {
    fn load(&mut self) -> Result<Directory, StoreError> {
        self.memory.load()
    }

    fn audit(&mut self, filter: Filter) -> Result<Vec<Row>, StoreError> {
        self.memory.audit(filter)
    }

    fn backup_job(&mut self, to: &Path) -> Result<BackupJob, StoreError> {
        self.memory.backup_job(to)
    }

    fn write(&mut self, edits: &[Edit], entries: &[Entry]) -> Result<(), StoreError> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(StoreError::Unwritable {
                file: "moody".into(),
                source: "no space left".into(),
            });
        }
        self.memory.write(edits, entries)
    }
}

#[tokio::test]
async fn what_can_not_be_stored_is_not_done_and_keeps_peers_out() {
    let is_full = Arc::new(AtomicBool::new(false));
    let mut store = Moody {
        memory: Memory::new(account()),
        is_full: Arc::clone(&is_full),
    };
    let mut random = StdRng::from_seed([1; 32]);
    let (relay, relay_token) = token::mint(&mut random, TokenKind::Relay, 0, None);
    store.write(&[Edit::PutToken(relay)], &[]).unwrap();
    let state = State::new(clock::now(), clock::unix(), store.load().unwrap(), [2; 32]);
    let (core, handle) = Core::new(state, Box::new(store));
    let running = tokio::spawn(core.run());
    let create = Request::CreateToken {
        kind: TokenFor::Relay,
        expires: None,
    };
    let connect = Connect {
        role: Role::Relay,
        generation: Generation::V2,
        framing: Framing::Object,
        token: Some(relay_token),
        external_id: None,
        name: None,
        public_key: None,
        ipv4: Some("192.0.2.1".to_owned()),
        ipv6: None,
        port: None,
        user_agent: None,
        remote: None,
    };

    is_full.store(true, Ordering::Relaxed);
    let failed = handle.admin(7, create.clone()).await.unwrap();
    let Err(Failure::NotStored { problem }) = failed else {
        panic!("{failed:?}");
    };
    assert!(problem.contains("no space left"), "{problem}");
    let shown = handle.admin(7, Request::Show).await.unwrap().unwrap();
    let Response::Shown(shown) = shown else {
        panic!("{shown:?}");
    };
    assert_eq!(shown.tokens.len(), 1, "what failed is not shown");
    let mut opened = handle.connect(connect.clone()).await.unwrap();

    is_full.store(false, Ordering::Relaxed);
    handle.admin(7, create).await.unwrap().unwrap();
    let audited = Request::Audit {
        limit: None,
        since: None,
    };
    let audited = handle.admin(7, audited).await.unwrap().unwrap();
    let Response::Audited { rows } = audited else {
        panic!("{audited:?}");
    };
    assert_eq!(rows.len(), 1, "what failed leaves no entry: {rows:?}");
    assert_eq!(rows[0].entry.who, Who::Admin { uid: 7 });
    let file = "/nowhere/backup.sqlite".into();
    let backup = handle.admin(7, Request::Backup { file }).await.unwrap();
    assert!(
        matches!(backup, Err(Failure::NoBackup { .. })),
        "{backup:?}"
    );
    handle.stop().await;
    running.await.unwrap();
    // A trouble of ours is no trouble of its token.
    let told = opened.outgoing.recv().await;
    let code = SERVICE_RESTART;
    assert!(
        matches!(told, Some(Outgoing::Close { code: told, .. }) if told == code),
        "{told:?}"
    );
    let gone = handle.connect(connect).await;
    assert!(matches!(gone, Err(Rejected::Unavailable)), "{gone:?}");
}

#[tokio::test]
async fn a_device_that_can_not_be_stored_keeps_the_next_one_out_until_it_is() {
    let is_full = Arc::new(AtomicBool::new(false));
    let world = crate::tests::World::new("[[site]]\nname = \"hq\"");
    let site = world.directory.site_named("hq").unwrap().clone();
    let mut random = StdRng::from_seed([1; 32]);
    let (token, text) = token::mint(&mut random, TokenKind::Gateway(site.id), 0, None);
    let mut store = Moody {
        memory: Memory::new(account()),
        is_full: Arc::clone(&is_full),
    };
    store
        .write(&[Edit::PutSite(site), Edit::PutToken(token)], &[])
        .unwrap();
    let state = State::new(clock::now(), clock::unix(), store.load().unwrap(), [2; 32]);
    let (mut core, _handle) = Core::new(state, Box::new(store));
    let gateway = |name: &str| Connect {
        role: Role::Gateway,
        generation: Generation::V2,
        framing: Framing::Object,
        token: Some(text.clone()),
        external_id: Some(name.to_owned()),
        name: Some(name.to_owned()),
        public_key: Some(connlib_wire::key::PublicKey([1; 32]).to_string()),
        ipv4: None,
        ipv6: None,
        port: None,
        user_agent: None,
        remote: None,
    };

    is_full.store(true, Ordering::Relaxed);
    connect(&mut core, &gateway("first")).unwrap();
    core.settle();
    let rejected = connect(&mut core, &gateway("second"));
    assert!(matches!(rejected, Err(Rejected::Unavailable)));
    assert!(core.wake_at().is_some(), "it will try again by itself");

    is_full.store(false, Ordering::Relaxed);
    core.settle();
    connect(&mut core, &gateway("second")).unwrap();
    core.settle();
    assert_eq!(core.store.load().unwrap().gateways().len(), 2);
    let rows = core.store.audit(Filter::default()).unwrap();
    let told: Vec<&str> = rows.iter().map(|row| row.entry.what.as_str()).collect();
    assert_eq!(told, ["added gateway", "added gateway"]);
}

fn connect(core: &mut Core, connect: &Connect) -> Result<Opened, Rejected> {
    let (answer, mut answered) = oneshot::channel();
    core.connect(connect, answer);

    answered.try_recv().expect("it is answered at once")
}

#[tokio::test]
async fn a_socket_that_holds_too_many_bytes_is_closed() {
    let (sender, messages) = mpsc::channel(OUTGOING);
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let mut receiver = OutgoingReceiver {
        messages,
        waiting_bytes: Arc::clone(&waiting_bytes),
    };
    let sender = OutgoingSender {
        messages: sender,
        waiting_bytes,
    };
    let text = |size: usize| Outgoing::Text("x".repeat(size));

    assert!(sender.try_send(text(OUTGOING_BYTES + 1)).is_ok());
    assert!(sender.try_send(text(1)).is_err());
    receiver.recv().await.unwrap();
    assert!(sender.try_send(text(1)).is_ok());
}
