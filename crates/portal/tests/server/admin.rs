use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use connlib_portal::admin::{
    AdminError, Explanation, Failure, Request, Response, Show, Target, TokenFor, call,
};
use connlib_portal::audit::{Row, Who};
use connlib_portal::store::StoreError;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::FILE;
use crate::peers::{Portal, connect, device, request};

#[tokio::test]
async fn a_running_portal_answers_over_its_socket() {
    let portal = Portal::start().await;
    let target = portal.target();
    let mode = portal.dir.path().join("admin.sock").metadata().unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);

    let again = call(&target, apply(FILE, false)).await.unwrap();
    let Response::Applied { changes, .. } = again else {
        panic!("{again:?}");
    };
    assert!(changes.is_empty(), "{changes:?}");

    let (_, _) = portal.gateway().await;
    let (_client, init) = portal.client("alice").await;
    let shown = show(&target).await;
    assert_eq!(shown.sites[0].name, "hq");
    assert!(shown.clients[0].online);
    let ipv4 = json!(shown.clients[0].ipv4);
    assert_eq!(ipv4, init["interface"]["ipv4"]);
    assert_eq!(shown.tokens.len(), 2);
}

#[tokio::test]
async fn changes_reach_those_who_are_connected() {
    let portal = Portal::start().await;
    let (mut client, _) = portal.client("alice").await;
    let more = format!(
        "{FILE}\n[[resource]]\nname = \"vault\"\naddress = \"10.30.0.1\"\nsites = [\"hq\"]\n[[policy]]\ngroup = \"staff\"\nresource = \"vault\""
    );

    portal.apply(&more).await;
    let created = client.hear("resource_created_or_updated").await;
    assert_eq!(created["address"], "10.30.0.1/32");

    let dry = call(&portal.target(), apply(FILE, true)).await.unwrap();
    let Response::Applied { changes, .. } = dry else {
        panic!("{dry:?}");
    };
    assert_eq!(changes.removed.len(), 2);
    assert!(client.is_alive().await);

    portal.apply(FILE).await;
    assert_eq!(client.hear("resource_deleted").await, created["id"]);
}

#[tokio::test]
async fn a_revoked_token_ends_the_session() {
    let portal = Portal::start().await;
    let (mut client, _) = portal.client("alice").await;
    let id = show(&portal.target()).await.tokens[0].id;

    call(&portal.target(), Request::RevokeToken { id })
        .await
        .unwrap();

    let disconnect = client.hear("disconnect").await;
    assert_eq!(disconnect, json!({"reason": "token_expired"}));
    assert_eq!(client.closed().await, 1008);
    assert!(!show(&portal.target()).await.tokens[0].usable);
}

#[tokio::test]
async fn failures_come_back_as_what_they_are() {
    let portal = Portal::start().await;

    let wrong = call(&portal.target(), apply("[[site]]\nnmae = \"hq\"", false)).await;
    let Err(AdminError::Failed(Failure::Topology(error))) = wrong else {
        panic!("{wrong:?}");
    };
    assert_eq!((error.line, error.key.as_str()), (2, "nmae"));
    assert_eq!(show(&portal.target()).await.actors.len(), 2);

    let kind = TokenFor::Client {
        actor: "nobody".to_owned(),
    };
    let unknown = Request::CreateToken {
        kind,
        expires: None,
    };
    let unknown = call(&portal.target(), unknown).await;
    assert!(matches!(
        unknown,
        Err(AdminError::Failed(Failure::UnknownActor { .. }))
    ));
}

#[tokio::test]
async fn what_decides_is_explained_for_those_who_are_connected() {
    let portal = Portal::start().await;
    let conditions = "conditions = [ { remote_ip = [\"127.0.0.1\"] } ]";
    portal.apply(&format!("{FILE}{conditions}")).await;
    let _client = portal.client("alice").await;
    let token = portal.gateway_token().await;
    let mut request = request(portal.addr(), &device("gateway", "gw", 2), Some(&token));
    let agent = "Linux/6 gateway/1.7.3".parse().unwrap();
    request.headers_mut().insert("user-agent", agent);
    let mut gateway = connect(portal.addr(), request).await.unwrap();
    gateway.join("gateway").await;
    let file = Target::File(portal.file());

    let online = explain(&portal.target()).await;
    assert!(online.allowed, "{online:?}");
    assert!(online.verdicts[0].online);
    assert_eq!(online.verdicts[0].remote_ip, Some([127, 0, 0, 1].into()));
    assert_eq!(online.verdicts[0].unfit_gateways, ["n (1.7.3)"]);

    portal.server.stop().await;
    let at_rest = explain(&file).await;
    assert!(!at_rest.allowed, "{at_rest:?}");
    let failed = &at_rest.verdicts[0].others[0].failed[0];
    assert!(failed.contains("connects from 192.0.2.1"), "{failed}");
}

#[tokio::test]
async fn the_audit_says_who_changed_what() {
    let portal = Portal::start().await;
    let (_gateway, _) = portal.gateway().await;
    let uid = portal.dir.path().metadata().unwrap().uid();
    let file = Target::File(portal.file());

    let running = audit(&portal.target(), None).await;
    let told: Vec<(&str, &str)> = (running.iter())
        .map(|row| (row.entry.what.as_str(), row.entry.subject.as_str()))
        .collect();
    assert_eq!(told[..2], [("added site", "hq"), ("added actor", "alice")]);
    let [.., token, gateway] = &running[..] else {
        panic!("{running:?}");
    };
    assert_eq!(
        (&token.entry.what[..], token.entry.who),
        ("added token", Who::Admin { uid })
    );
    assert_eq!(
        (&gateway.entry.what[..], gateway.entry.who),
        ("added gateway", Who::Peer)
    );

    portal.server.stop().await;
    assert_eq!(audit(&file, None).await, running);
    call(&file, apply("", false)).await.unwrap();
    let newest = audit(&file, Some(1)).await;
    assert_eq!(newest[0].entry.what, "removed site");
    assert_eq!(newest[0].entry.who, Who::Admin { uid });
    assert!(newest[0].sequence > running.len() as u64);
}

#[tokio::test]
async fn a_backup_is_made_while_serving_and_of_a_file_at_rest() {
    let portal = Portal::start().await;
    let (_gateway, _) = portal.gateway().await;
    let path = |name: &str| portal.dir.path().join(name);
    let backup = |name: &str| Request::Backup { file: path(name) };
    let (first, second) = (path("first.sqlite"), path("second.sqlite"));

    let made = call(&portal.target(), backup("first.sqlite"))
        .await
        .unwrap();
    assert_eq!(
        made,
        Response::BackedUp {
            file: first.clone()
        }
    );
    let again = call(&portal.target(), backup("first.sqlite")).await;
    let Err(AdminError::Failed(Failure::NoBackup { problem })) = again else {
        panic!("{again:?}");
    };
    assert!(problem.contains("exists already"), "{problem}");
    let mut running = show(&portal.target()).await;
    running.gateways[0].online = false;
    running.gateways[0].version = None;
    assert_eq!(show(&Target::File(first)).await, running);

    let (file, dir) = (Target::File(portal.file()), portal.dir);
    portal.server.stop().await;
    let request = Request::Backup {
        file: second.clone(),
    };
    call(&file, request.clone()).await.unwrap();
    assert_eq!(show(&Target::File(second)).await, running);
    let again = call(&file, request).await;
    assert!(
        matches!(
            again,
            Err(AdminError::Store(StoreError::BackupExists { .. }))
        ),
        "{again:?}"
    );
    drop(dir);
}

#[tokio::test]
async fn a_database_at_rest_answers_the_same() {
    let portal = Portal::start().await;
    let (_, _) = portal.gateway().await;
    let file = Target::File(portal.file());
    let busy = call(&file, Request::Show).await;
    assert!(
        matches!(busy, Err(AdminError::Store(StoreError::InUse { .. }))),
        "{busy:?}"
    );
    let mut running = show(&portal.target()).await;

    portal.server.stop().await;
    for gateway in &mut running.gateways {
        gateway.online = false;
        gateway.version = None;
    }
    assert_eq!(show(&file).await, running);

    let more = FILE.replace("\"bob\"", "\"carol\"");
    let applied = call(&file, apply(&more, false)).await.unwrap();
    let Response::Applied { changes, .. } = applied else {
        panic!("{applied:?}");
    };
    assert_eq!(changes.added[0].to_string(), "actor `carol`");
    assert_eq!(show(&file).await.actors[1].name, "carol");
}

#[tokio::test]
async fn a_file_is_made_by_what_adds_to_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.sqlite");
    let file = Target::File(path.clone());

    let missing = call(&file, Request::Show).await;
    assert!(matches!(
        missing,
        Err(AdminError::Store(StoreError::Missing { .. }))
    ));
    let dry = call(&file, apply(FILE, true)).await.unwrap();
    assert!(matches!(dry, Response::Applied { dry_run: true, .. }));
    assert!(!path.exists());

    call(&file, apply(FILE, false)).await.unwrap();
    assert_eq!(show(&file).await.resources.len(), 1);
}

#[tokio::test]
async fn calls_at_the_same_time_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = Target::File(dir.path().join("new.sqlite"));
    call(&file, apply(FILE, false)).await.unwrap();
    let token = || Request::CreateToken {
        kind: TokenFor::Relay,
        expires: None,
    };

    let (first, second, third) = tokio::join!(
        call(&file, token()),
        call(&file, token()),
        call(&file, token())
    );

    for answer in [first, second, third] {
        answer.unwrap();
    }
    assert_eq!(show(&file).await.tokens.len(), 3);
}

#[tokio::test]
async fn nobody_there_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = Target::Socket(dir.path().join("admin.sock"));

    let error = call(&nowhere, Request::Show).await;

    assert!(
        matches!(error, Err(AdminError::NotRunning { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn nonsense_at_the_socket_costs_only_its_connection() {
    let portal = Portal::start().await;
    let socket = portal.dir.path().join("admin.sock");
    for nonsense in ["\n", "{}\n", "{\"request\":\"fly\"}\n", "\u{0}\u{ffff}\n"] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(nonsense.as_bytes()).await.unwrap();
        let mut answer = vec![];
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"");
    }

    show(&portal.target()).await;
}

fn apply(text: &str, dry_run: bool) -> Request {
    Request::Apply {
        text: text.to_owned(),
        file_name: "t.toml".to_owned(),
        dry_run,
    }
}

async fn audit(target: &Target, limit: Option<u32>) -> Vec<Row> {
    let request = Request::Audit { limit, since: None };
    let response = call(target, request).await.unwrap();
    let Response::Audited { rows } = response else {
        panic!("{response:?}");
    };
    rows
}

async fn explain(target: &Target) -> Explanation {
    let request = Request::Explain {
        actor: "alice".to_owned(),
        resource: "lan".to_owned(),
        remote_ip: Some([192, 0, 2, 1].into()),
        country: None,
    };
    let response = call(target, request).await.unwrap();
    let Response::Explained(explanation) = response else {
        panic!("{response:?}");
    };
    *explanation
}

async fn show(target: &Target) -> Show {
    let response = call(target, Request::Show).await.unwrap();
    let Response::Shown(show) = response else {
        panic!("{response:?}");
    };
    *show
}
