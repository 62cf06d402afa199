use std::os::unix::fs::PermissionsExt as _;

use connlib_wire::id::{ClientId, GatewayId, ResourceId, SiteId};
use connlib_wire::portal::resource::IpStack;
use proptest::prelude::*;

use super::*;
use crate::audit::Who;
use crate::model::{
    Actor, ActorId, Address, Client, Condition, Device, Gateway, Grant, GrantId, GrantKey, Network,
    Networks, Policy, PolicyId, PskBase, Resource, Site, Token, TokenId, TokenKind, parse_filter,
};
use crate::store::memory::Memory;
use crate::tests::{account, ids};

#[test]
fn what_was_written_is_there_after_reopening() {
    let (_dir, file) = temporary();
    let mut written = Directory::new(account());
    let mut store = open(&file).unwrap();
    for op in (0..14).flat_map(|kind| (0..3).map(move |a| (kind, a, (a + 1) % 3, a % 2))) {
        let Some(edit) = edit(&written, op) else {
            continue;
        };
        if matches!(
            edit,
            Edit::DropSite(_) | Edit::DropActor(_) | Edit::DropResource(_) | Edit::DropPolicy(_)
        ) {
            continue;
        }
        written.apply(&edit);
        store.write(&[edit], &[]).unwrap();
    }
    drop(store);

    let other_account = Account {
        id: ids(1),
        ..account()
    };
    let mut store = Sqlite::open(&file, IfMissing::Fail, &other_account).unwrap();

    let read = store.load().unwrap();
    assert!(!read.grants().is_empty() && !read.tokens().is_empty());
    assert_eq!(read, written);
}

#[test]
fn only_grants_alone_may_wait_for_the_disk() {
    let mut written = Directory::new(account());
    let (_dir, file) = temporary();
    let mut store = open(&file).unwrap();
    let mut of_grants = 0;
    for op in (0..14).flat_map(|kind| (0..3).map(move |a| (kind, a, (a + 1) % 3, a % 2))) {
        let Some(edit) = edit(&written, op) else {
            continue;
        };
        if matches!(
            edit,
            Edit::DropSite(_) | Edit::DropActor(_) | Edit::DropResource(_) | Edit::DropPolicy(_)
        ) {
            continue;
        }
        let is_grant = matches!(edit, Edit::PutGrant(_));
        written.apply(&edit);
        store.write(&[edit], &[]).unwrap();

        let synchronous: i64 = store
            .connection
            .query_row("PRAGMA synchronous", [], |row| row.get(0))
            .unwrap();
        // NORMAL and FULL.
        assert_eq!(synchronous, if is_grant { 1 } else { 2 });
        of_grants += u32::from(is_grant);
    }
    assert!(of_grants > 0);
}

#[test]
fn edits_are_made_together_or_not_at_all() {
    let (_dir, file) = temporary();
    let mut store = open(&file).unwrap();
    let nobodys = Policy {
        id: PolicyId(ids(1)),
        group: "g".to_owned(),
        resource: ResourceId(ids(404)),
        conditions: vec![],
    };
    let site = Site {
        id: SiteId(ids(1)),
        name: "hq".to_owned(),
    };

    let error = store.write(
        &[Edit::PutSite(site), Edit::PutPolicy(nobodys)],
        &[entry(1)],
    );

    assert!(
        matches!(error, Err(StoreError::Unwritable { .. })),
        "{error:?}"
    );
    assert_eq!(store.load().unwrap(), Directory::new(account()));
    assert_eq!(store.audit(Filter::default()).unwrap(), []);
}

#[test]
fn a_file_is_made_only_where_that_is_wanted_and_for_its_owner_alone() {
    let (_dir, file) = temporary();

    let missing = Sqlite::open(&file, IfMissing::Fail, &account());
    assert!(matches!(missing, Err(StoreError::Missing { .. })));
    assert!(!file.exists());

    let store = open(&file).unwrap();
    let wal = PathBuf::from(format!("{}-wal", file.display()));
    for file in [&file, &wal] {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    drop(store);

    let nowhere = file.parent().unwrap().join("no/such/directory.sqlite");
    let unopenable = open(&nowhere);
    assert!(matches!(unopenable, Err(StoreError::Unopenable { .. })));
}

#[test]
fn a_file_is_opened_once_at_a_time() {
    let (_dir, file) = temporary();
    let store = open(&file).unwrap();

    let second = open(&file);
    assert!(
        matches!(second, Err(StoreError::InUse { .. })),
        "{second:?}"
    );

    drop(store);
    open(&file).unwrap();
}

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let (_dir, file) = temporary();
    drop(open(&file).unwrap());
    let connection = Connection::open(&file).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);

    let error = open(&file).unwrap_err();

    assert!(
        matches!(
            error,
            StoreError::Newer {
                found: 99,
                known: 4,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("99"), "{error}");
}

#[test]
fn a_file_of_the_first_version_is_carried_over() {
    let (_dir, file) = temporary();
    let connection = Connection::open(&file).unwrap();
    connection.execute_batch(MIGRATIONS[0]).unwrap();
    let rows = "INSERT INTO account VALUES (1, '1', 'test', 'key');
         INSERT INTO resolvers VALUES ('do53', 0, '9.9.9.9'), ('doh', 0, 'https://dns.example/');
         INSERT INTO sites VALUES ('3', 'hq');
         INSERT INTO actors VALUES ('4', 'alice');
         INSERT INTO resources VALUES ('5', 'lan', '10.20.0.0/16', NULL);
         INSERT INTO policies VALUES ('6', 'staff', '5');
         INSERT INTO tokens VALUES ('7', '4', NULL, zeroblob(32), zeroblob(16), 5, NULL, NULL);
         INSERT INTO clients VALUES ('8', '4', 'laptop', 'laptop', '100.64.0.1', 'fd00:2021:1111::1', zeroblob(32));
         INSERT INTO gateways VALUES ('9', '3', 'gw', 'gw', '100.64.0.2', 'fd00:2021:1111::2', zeroblob(32));
         INSERT INTO grants VALUES ('8', '5', '9', '2', '6', '7', 6, NULL);
         PRAGMA user_version = 1;";
    let long = |number: u32| format!("'{}'", ids(number.into()));
    let rows = (1..10).fold(rows.to_owned(), |rows, number| {
        rows.replace(&format!("'{number}'"), &long(number))
    });
    connection.execute_batch(&rows).unwrap();
    connection
        .pragma_update(None, "application_id", APPLICATION_ID)
        .unwrap();
    drop(connection);

    let mut store = open(&file).unwrap();
    let directory = store.load().unwrap();
    assert_eq!(directory.grants().len(), 1);
    assert!(
        directory
            .policies()
            .values()
            .all(|policy| policy.conditions.is_empty())
    );
    assert!(directory.clients().values().all(|client| !client.verified));

    // References are enforced again.
    let policy = PolicyId(ids(6));
    store.write(&[Edit::DropPolicy(policy)], &[]).unwrap();
    assert_eq!(store.load().unwrap().grants().len(), 0);
    let second = Policy {
        id: PolicyId(ids(60)),
        group: "staff".to_owned(),
        resource: ResourceId(ids(5)),
        conditions: vec![Condition::Verified],
    };
    let third = Policy {
        id: PolicyId(ids(61)),
        ..second.clone()
    };
    store
        .write(&[Edit::PutPolicy(second), Edit::PutPolicy(third)], &[])
        .unwrap();
    assert_eq!(store.load().unwrap().policies().len(), 2);
    drop(store);

    let network = open(&file).unwrap().load().unwrap().network().clone();
    assert_eq!(
        network.do53,
        ["9.9.9.9".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(network.doh, ["https://dns.example/"]);
    assert!(network.dot.is_empty());
}

#[test]
fn a_file_of_another_program_is_refused_and_left_alone() {
    let (_dir, file) = temporary();
    let connection = Connection::open(&file).unwrap();
    connection.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(connection);
    let before = std::fs::read(&file).unwrap();

    let error = open(&file).unwrap_err();
    assert!(matches!(error, StoreError::NotOurs { .. }), "{error:?}");
    assert_eq!(std::fs::read(&file).unwrap(), before);

    std::fs::write(
        &file,
        "not a database at all, but long enough to be looked at ".repeat(40),
    )
    .unwrap();
    let error = open(&file).unwrap_err();
    assert!(matches!(error, StoreError::NotOurs { .. }), "{error:?}");
}

#[test]
fn a_damaged_file_is_refused() {
    let (_dir, file) = temporary();
    drop(open(&file).unwrap());
    let mut bytes = std::fs::read(&file).unwrap();
    let second_page = bytes.get_mut(4096..).unwrap();
    second_page.fill(0xa5);
    std::fs::write(&file, bytes).unwrap();

    let error = open(&file).unwrap_err();

    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("backup"), "{error}");
}

/// Whoever has written it was killed: what was committed last stands in the log beside it.
#[test]
fn a_file_that_is_refused_stays_as_it_was_with_its_log() {
    const THEIRS: &str = "CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)";
    const NEWER: &str = "PRAGMA user_version = 99; PRAGMA application_id = 1668247150";
    for (script, is_damaged) in [(THEIRS, false), (NEWER, false), (NEWER, true)] {
        let (dir, file) = temporary();
        let connection = Connection::open(&file).unwrap();
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .unwrap();
        connection.execute_batch(script).unwrap();
        let killed = dir.path().join("killed.sqlite");
        for suffix in ["", "-wal"] {
            let beside = |file: &Path| PathBuf::from(format!("{}{suffix}", file.display()));
            std::fs::copy(beside(&file), beside(&killed)).unwrap();
        }
        drop(connection);
        if is_damaged {
            std::fs::write(&killed, [0xa5; 8192]).unwrap();
        }
        let log = PathBuf::from(format!("{}-wal", killed.display()));
        let read = || {
            (
                std::fs::read(&killed).unwrap(),
                std::fs::read(&log).unwrap(),
            )
        };
        let before = read();
        assert!(!before.1.is_empty());

        open(&killed).unwrap_err();

        assert!(read() == before, "{script} {is_damaged}");
    }
}

#[test]
fn a_row_that_makes_no_sense_is_told_and_does_not_panic() {
    let (_dir, file) = temporary();
    drop(open(&file).unwrap());
    let connection = Connection::open(&file).unwrap();
    connection
        .execute_batch("INSERT INTO sites VALUES ('nobody', 'hq')")
        .unwrap();
    drop(connection);

    let error = open(&file).unwrap().load().unwrap_err();

    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[test]
fn the_audit_only_grows() {
    let (_dir, file) = temporary();
    let mut store = open(&file).unwrap();
    store.write(&[], &[entry(5), entry(6), entry(7)]).unwrap();
    drop(store);
    let connection = Connection::open(&file).unwrap();
    for tampering in [
        "UPDATE audit SET who = 'portal', uid = NULL",
        "DELETE FROM audit WHERE sequence = 2",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT 2, at, who, uid, 'nothing', subject, details FROM audit WHERE sequence = 1",
    ] {
        let error = connection.execute_batch(tampering).unwrap_err();
        assert!(
            error.to_string().contains("only grows"),
            "{tampering}: {error}"
        );
    }
    drop(connection);

    let mut store = open(&file).unwrap();
    let rows = store.audit(Filter::default()).unwrap();
    let expected = [(1, entry(5)), (2, entry(6)), (3, entry(7))];
    assert_eq!(
        rows,
        expected.map(|(sequence, entry)| audit_row(sequence, entry))
    );
    let newest = Filter {
        limit: Some(1),
        since: Some(6),
    };
    assert_eq!(store.audit(newest).unwrap(), [audit_row(3, entry(7))]);
}

fn audit_row(sequence: u64, entry: Entry) -> Row {
    Row { sequence, entry }
}

fn entry(at: u64) -> Entry {
    let who = match at % 3 {
        0 => Who::Admin { uid: u32::MAX },
        1 => Who::Peer,
        _ => Who::Portal,
    };

    Entry {
        at,
        who,
        what: "added \"it's\"".to_owned(),
        subject: at.to_string(),
        details: serde_json::json!({"a": [1, null, "b"]}),
    }
}

fn filters() -> [Filter; 4] {
    [
        (None, None),
        (Some(2), None),
        (Some(3), Some(1)),
        (Some(0), Some(2)),
    ]
    .map(|(limit, since)| Filter { limit, since })
}

#[test]
fn a_backup_is_a_store_of_its_own_and_edits_go_on() {
    let (dir, file) = temporary();
    let mut store = open(&file).unwrap();
    let mut directory = Directory::new(account());
    let mut put = |store: &mut Sqlite, number: u8| {
        let edit = Edit::PutSite(Site {
            id: SiteId(ids(number.into())),
            name: format!("site {number}"),
        });
        directory.apply(&edit);
        store.write(&[edit], &[entry(number.into())]).unwrap();
        directory.clone()
    };
    (0..100).for_each(|number| drop(put(&mut store, number)));

    let to = dir.path().join("backup.sqlite");
    let job = store.backup_job(&to).unwrap();
    let copying = std::thread::spawn(move || job.run());
    let mut seen = vec![];
    for number in 100..140 {
        seen.push(put(&mut store, number));
    }
    copying.join().unwrap().unwrap();

    assert_eq!(to.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut copy = open(&to).unwrap();
    let copied = copy.load().unwrap();
    let sites = copied.sites().len();
    assert!(sites >= 100);
    assert!(
        sites == 100 || seen[sites - 101] == copied,
        "it is as of one moment"
    );
    assert_eq!(copy.audit(Filter::default()).unwrap().len(), sites);
    copy.write(&[], &[entry(1)]).unwrap();
    let names = std::fs::read_dir(dir.path()).unwrap();
    let names: Vec<String> = names
        .map(|name| name.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !names.iter().any(|name| name.contains("partial")),
        "{names:?}"
    );

    store.backup(&dir.path().join("another.sqlite")).unwrap();
    let mut another = open(&dir.path().join("another.sqlite")).unwrap();
    assert_eq!(another.load().unwrap(), store.load().unwrap());
}

#[test]
fn a_backup_replaces_nothing_and_leaves_nothing_half_done() {
    let (dir, file) = temporary();
    let mut store = open(&file).unwrap();
    let theirs = dir.path().join("theirs");
    std::fs::write(&theirs, "a file of somebody").unwrap();

    let error = store.backup(&theirs).unwrap_err();
    assert!(
        matches!(error, StoreError::BackupExists { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("name another file"), "{error}");
    assert_eq!(std::fs::read(&theirs).unwrap(), b"a file of somebody");
    let itself = store.backup(&file).unwrap_err();
    assert!(
        matches!(itself, StoreError::BackupExists { .. }),
        "{itself:?}"
    );

    // It came after the job was made.
    let to = dir.path().join("backup.sqlite");
    let job = store.backup_job(&to).unwrap();
    std::os::unix::fs::symlink("nowhere", &to).unwrap();
    assert!(matches!(job.run(), Err(StoreError::BackupExists { .. })));

    let nowhere = dir.path().join("no/such/backup.sqlite");
    let error = store.backup(&nowhere).unwrap_err();
    assert!(
        matches!(error, StoreError::BackupFailed { .. }),
        "{error:?}"
    );
    let names = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(
        names, 6,
        "the database, its log, its index, its lock, and two of ours"
    );

    let mut memory = Sqlite::in_memory(&account()).unwrap();
    let error = memory.backup(&dir.path().join("m.sqlite")).unwrap_err();
    assert!(matches!(error, StoreError::NotInAFile), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_stores_keep_the_same(
        ops in proptest::collection::vec((0..14_u8, 0..3_u8, 0..3_u8, 0..2_u8), 0..80),
    ) {
        let mut directory = Directory::new(account());
        let mut memory = Memory::new(account());
        let mut sqlite = Sqlite::in_memory(&account()).unwrap();
        for op @ (_, a, _, c) in ops {
            let Some(edit) = edit(&directory, op) else {
                continue;
            };
            directory.apply(&edit);
            let entries: Vec<Entry> = (0..c % 2).map(|_| entry(a.into())).collect();
            memory.write(std::slice::from_ref(&edit), &entries).unwrap();
            sqlite.write(&[edit], &entries).unwrap();
        }

        prop_assert_eq!(&memory.load().unwrap(), &directory);
        prop_assert_eq!(&sqlite.load().unwrap(), &directory);
        for filter in filters() {
            prop_assert_eq!(sqlite.audit(filter).unwrap(), memory.audit(filter).unwrap());
        }
    }
}

/// An edit whose references are there.
fn edit(directory: &Directory, (kind, a, b, c): (u8, u8, u8, u8)) -> Option<Edit> {
    match kind {
        0..9 => topology_edit(directory, (kind, a, b, c)),
        9 => Some(Edit::PutToken(token(directory, a, b, c))),
        _ => session_edit(directory, (kind, a, b, c)),
    }
}

fn topology_edit(directory: &Directory, (kind, a, b, c): (u8, u8, u8, u8)) -> Option<Edit> {
    let (site, other_site) = (SiteId(number(10, a)), SiteId(number(10, b)));
    let (actor, resource) = (ActorId(number(20, a)), ResourceId(number(30, a)));
    let policy = PolicyId(number(40, a * 3 + b));
    let sites = directory.sites();
    let mut resources = directory.resources().values();

    Some(match kind {
        0 => Edit::SetNetwork(Network {
            do53: vec![[9, 9, 9, a].into(), "fd00::53".parse().unwrap()],
            doh: vec![format!("https://dns{b}.example/"); usize::from(c)],
            dot: vec![format!("tls://dns{b}.example"); usize::from(c)],
            search_domain: (c == 0).then(|| format!("corp{a}.test")),
        }),
        1 => Edit::PutSite(Site {
            id: site,
            name: format!("site {a}"),
        }),
        2 if !resources.any(|resource| resource.sites.contains(&site)) => Edit::DropSite(site),
        3 => Edit::PutActor(Actor {
            id: actor,
            name: format!("actor {a}"),
            groups: (0..b).map(|group| format!("group {group}")).collect(),
        }),
        4 => Edit::DropActor(actor),
        5 if sites.contains_key(&site) && sites.contains_key(&other_site) => {
            Edit::PutResource(Resource {
                id: resource,
                name: format!("resource {a}"),
                address: address(b, c),
                sites: match site == other_site {
                    true => vec![site],
                    false => vec![other_site, site],
                },
                filters: (["tcp/80-443", "udp", "icmp"].iter())
                    .take(usize::from(b))
                    .map(|filter| parse_filter(filter).unwrap())
                    .collect(),
            })
        }
        6 => Edit::DropResource(resource),
        7 if directory.resources().contains_key(&resource) => Edit::PutPolicy(Policy {
            id: policy,
            group: format!("group {}", b % 2),
            resource,
            conditions: match c {
                0 => vec![],
                _ => vec![
                    Condition::RemoteIp(Networks::from_iter(["203.0.113.0/24".parse().unwrap()])),
                    Condition::Verified,
                ],
            },
        }),
        8 => Edit::DropPolicy(policy),
        _ => return None,
    })
}

fn session_edit(directory: &Directory, (kind, a, b, c): (u8, u8, u8, u8)) -> Option<Edit> {
    let (actor, site) = (ActorId(number(20, a)), SiteId(number(10, a)));
    let client = ClientId(number(50, a * 3 + b));
    let gateway = GatewayId(number(60, a * 3 + b));

    Some(match kind {
        10 if directory.actors().contains_key(&actor) => {
            let known = directory.clients().get(&client);
            let device = device(directory, known.map(|known| &known.device), b, c)?;
            Edit::PutClient(Client {
                id: client,
                actor,
                verified: c == 1,
                device,
            })
        }
        11 if directory.sites().contains_key(&site) => {
            let known = directory.gateways().get(&gateway);
            let device = device(directory, known.map(|known| &known.device), b, c)?;
            Edit::PutGateway(Gateway {
                id: gateway,
                site,
                device,
            })
        }
        12 | 13 => {
            let client = directory.clients().values().nth(usize::from(a))?;
            let policy = directory.policies().values().nth(usize::from(b))?;
            let gateway = directory.gateways().keys().nth(usize::from(c))?;
            let token = (directory.tokens().values())
                .find(|token| token.kind == TokenKind::Client(client.actor))?;
            let key = GrantKey {
                client: client.id,
                resource: policy.resource,
                gateway: *gateway,
            };
            if kind == 13 && c == 1 {
                return Some(Edit::DropGrant(key));
            }
            Edit::PutGrant(Grant {
                id: GrantId(number(80, a)),
                key,
                policy: policy.id,
                token: token.id,
                created_at: 6,
                expires_at: token.expires_at,
                remote_ip: (c == 0).then(|| [203, 0, 113, a].into()),
            })
        }
        _ => return None,
    })
}

fn token(directory: &Directory, a: u8, b: u8, c: u8) -> Token {
    let (actor, site) = (ActorId(number(20, a)), SiteId(number(10, a)));
    // A token's kind never changes, so the kind is a part of the number.
    let (kind, kind_number) = match c {
        0 if directory.actors().contains_key(&actor) => (TokenKind::Client(actor), 0),
        1 if directory.sites().contains_key(&site) => (TokenKind::Gateway(site), 3),
        _ => (TokenKind::Relay, 6),
    };

    Token {
        id: TokenId(number(70, a + kind_number)),
        kind,
        hash: [a; 32],
        salt: [b; 16],
        created_at: 5,
        expires_at: (b == 1).then_some(1_893_456_000),
        revoked_at: (b == 2).then_some(7),
    }
}

fn number(base: u128, index: u8) -> uuid::Uuid {
    ids(base + u128::from(index))
}

fn address(b: u8, c: u8) -> Address {
    match (b, c) {
        (0, _) => Address::Cidr("10.20.0.0/16".parse().unwrap()),
        (1, 0) => Address::Cidr("fd00::1/128".parse().unwrap()),
        (1, _) => Address::Internet,
        (_, 0) => Address::Dns {
            pattern: "*.corp.test".to_owned(),
            ip_stack: IpStack::Ipv6Only,
        },
        (_, _) => Address::Dns {
            pattern: "wiki.test".to_owned(),
            ip_stack: IpStack::Dual,
        },
    }
}

fn device(directory: &Directory, known: Option<&Device>, b: u8, c: u8) -> Option<Device> {
    let addresses = match known {
        Some(known) => known.addresses,
        None => directory.free_addresses()?,
    };

    Some(Device {
        external_id: format!("device {b}"),
        name: format!("name {c}"),
        addresses,
        psk_base: PskBase::new([b; 32]),
    })
}

fn temporary() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("portal.sqlite");
    (dir, file)
}

fn open(file: &Path) -> Result<Sqlite, StoreError> {
    Sqlite::open(file, IfMissing::Create, &account())
}
