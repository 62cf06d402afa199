use connlib_wire::id::GatewayId;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::perform::LAST_EXPIRY;
use super::*;
use crate::audit::{Filter, Who};
use crate::model::{Directory, Edit, Grant, GrantId, GrantKey, Locations};
use crate::state::Presence;
use crate::tests::{World, ids};

const FILE: &str = r#"
[[site]]
name = "hq"
[[actor]]
name = "alice"
groups = ["staff"]
[[resource]]
name = "lan"
address = "10.20.0.0/16"
sites = ["hq"]
filters = ["tcp/80-443"]
[[policy]]
group = "staff"
resource = "lan"
"#;

#[test]
fn a_dry_run_says_the_same_and_does_nothing() {
    let directory = World::new("").directory;

    let (dry_edits, dry) = ask(&directory, &apply(FILE, true)).unwrap();
    let (edits, wet) = ask(&directory, &apply(FILE, false)).unwrap();

    assert_eq!(dry_edits, []);
    assert!(!edits.is_empty());
    let (Response::Applied { changes: dry, .. }, Response::Applied { changes: wet, .. }) =
        (dry, wet)
    else {
        panic!("not applied");
    };
    assert_eq!(dry, wet);
    let added: Vec<String> = wet.added.iter().map(ToString::to_string).collect();
    assert_eq!(
        added,
        [
            "site `hq`",
            "actor `alice`",
            "resource `lan`",
            "policy `staff -> lan`"
        ]
    );
}

#[test]
fn a_wrong_topology_fails_with_its_place() {
    let directory = World::new("").directory;

    let failure = ask(&directory, &apply("[[site]]\nnmae = \"hq\"", false)).unwrap_err();

    let Failure::Topology(error) = &failure else {
        panic!("{failure:?}");
    };
    assert_eq!((error.line, error.key.as_str()), (2, "nmae"));
}

#[test]
fn tokens_are_made_for_what_exists() {
    let directory = World::new(FILE).directory;
    let kind = |kind| Request::CreateToken {
        kind,
        expires: Some(Duration::from_secs(60)),
    };
    let of = |name: &str| name.to_owned();

    let (edits, response) =
        ask(&directory, &kind(TokenFor::Client { actor: of("alice") })).unwrap();
    let Response::TokenCreated {
        id,
        token,
        expires_at,
    } = response
    else {
        panic!("{response:?}");
    };
    assert_eq!(expires_at, Some(1060));
    assert!(token.expose().starts_with('.'));
    let [Edit::PutToken(stored)] = &edits[..] else {
        panic!("{edits:?}");
    };
    assert_eq!(stored.id, id);

    let unknown = ask(&directory, &kind(TokenFor::Client { actor: of("bob") }));
    assert_eq!(unknown, Err(Failure::UnknownActor { name: of("bob") }));
    let unknown = ask(&directory, &kind(TokenFor::Gateway { site: of("branch") }));
    assert_eq!(unknown, Err(Failure::UnknownSite { name: of("branch") }));
    ask(&directory, &kind(TokenFor::Gateway { site: of("hq") })).unwrap();

    let eternal = Request::CreateToken {
        kind: TokenFor::Relay,
        expires: Some(Duration::MAX),
    };
    let (_, response) = ask(&directory, &eternal).unwrap();
    let Response::TokenCreated { expires_at, .. } = response else {
        panic!("{response:?}");
    };
    assert_eq!(expires_at, Some(LAST_EXPIRY));
}

#[test]
fn revoking_is_final_and_can_be_repeated() {
    let mut directory = World::new(FILE).directory;
    let relay = Request::CreateToken {
        kind: TokenFor::Relay,
        expires: None,
    };
    let (edits, response) = ask(&directory, &relay).unwrap();
    directory.apply(&edits[0]);
    let Response::TokenCreated { id, .. } = response else {
        panic!("{response:?}");
    };

    let (edits, response) = ask(&directory, &Request::RevokeToken { id }).unwrap();
    assert_eq!(response, Response::TokenRevoked { id });
    directory.apply(&edits[0]);
    assert!(!directory.tokens()[&id].is_usable(1000));
    let (edits, _) = ask(&directory, &Request::RevokeToken { id }).unwrap();
    assert_eq!(edits, []);

    let id = TokenId(ids(404));
    let unknown = ask(&directory, &Request::RevokeToken { id });
    assert_eq!(unknown, Err(Failure::UnknownToken { id }));
}

#[test]
fn a_client_is_verified_by_its_id() {
    let mut world = World::new(FILE);
    let id = ClientId(ids(1));
    world.put_client("alice", id);
    let verify = |directory: &Directory, verified| {
        let (edits, response) = ask(directory, &Request::VerifyClient { id, verified }).unwrap();
        assert_eq!(response, Response::ClientVerified { id, verified });
        edits
    };

    assert_eq!(verify(&world.directory, false), []);
    for edit in verify(&world.directory, true) {
        world.directory.apply(&edit);
    }
    assert!(world.directory.clients()[&id].verified);
    assert_eq!(verify(&world.directory, true), []);

    let id = ClientId(ids(404));
    let unknown = Request::VerifyClient { id, verified: true };
    assert_eq!(
        ask(&world.directory, &unknown),
        Err(Failure::UnknownClient { id })
    );
}

#[test]
fn whatever_an_admin_changes_leaves_entries_without_secrets() {
    let mut world = World::new(FILE);
    let client = ClientId(ids(1));
    let token = world.put_client("alice", client);
    world.put_gateway("hq", GatewayId(ids(2)));
    let key = GrantKey {
        client,
        resource: world.resource("lan"),
        gateway: GatewayId(ids(2)),
    };
    world.directory.apply(&Edit::PutGrant(Grant {
        id: GrantId(ids(3)),
        key,
        policy: *world.directory.policies().keys().next().unwrap(),
        token,
        created_at: 0,
        expires_at: None,
        remote_ip: None,
    }));
    let entries = |request: &Request| -> Vec<(String, String)> {
        let performed = performed(&world.directory, request).unwrap();
        assert_eq!(performed.entries.is_empty(), performed.edits.is_empty());
        let entries = performed.entries.into_iter();
        let seen = entries.map(|entry| {
            assert_eq!((entry.at, entry.who), (1000, Who::Admin { uid: 7 }));
            assert!(entry.details.is_object());
            (entry.what, entry.subject)
        });
        seen.collect()
    };
    let of = |what: &str, subject: &str| (what.to_owned(), subject.to_owned());
    let id = |number: u128| ids(number).to_string();

    let other = FILE
        .replace("staff", "guests")
        .replace("10.20.0.0/16", "10.21.0.0/16");
    assert_eq!(
        entries(&apply(&other, false)),
        [
            of("added policy", "guests -> lan"),
            of("changed actor", "alice"),
            of("changed resource", "lan"),
            of("removed policy", "staff -> lan"),
            of("withdrew grant", &id(3)),
        ]
    );
    assert_eq!(entries(&apply(&other, true)), []);
    assert_eq!(entries(&apply(FILE, false)), []);
    assert_eq!(
        entries(&Request::RevokeToken { id: token }),
        [
            of("revoked token", &token.to_string()),
            of("withdrew grant", &id(3))
        ]
    );
    let verify = |verified| Request::VerifyClient {
        id: client,
        verified,
    };
    assert_eq!(entries(&verify(true)), [of("verified client", &id(1))]);
    assert_eq!(entries(&verify(false)), []);

    let create = Request::CreateToken {
        kind: TokenFor::Relay,
        expires: None,
    };
    let created = performed(&world.directory, &create).unwrap();
    let Answer::Known(Response::TokenCreated { id, token, .. }) = &created.answer else {
        panic!("{created:?}");
    };
    let [entry] = &created.entries[..] else {
        panic!("{created:?}");
    };
    assert_eq!(
        (&entry.what[..], &entry.subject),
        ("added token", &id.to_string())
    );
    let text = serde_json::to_string(entry).unwrap();
    assert!(
        !text.contains(token.expose().rsplit('.').next().unwrap()),
        "{text}"
    );
}

#[test]
fn what_only_the_store_knows_is_asked_of_it() {
    let directory = World::new(FILE).directory;
    let answer = |request: &Request| performed(&directory, request).map(|done| done.answer);
    let backup = |file: &str| Request::Backup { file: file.into() };

    let (limit, since) = (Some(3), Some(900));
    let audit = answer(&Request::Audit { limit, since });
    assert_eq!(audit, Ok(Answer::Audit(Filter { limit, since })));
    assert_eq!(
        answer(&backup("/b.sqlite")),
        Ok(Answer::Backup("/b.sqlite".into()))
    );
    let file = "b.sqlite".into();
    assert_eq!(
        answer(&backup("b.sqlite")),
        Err(Failure::RelativePath { file })
    );
}

#[test]
fn what_is_shown_has_names_and_no_secrets() {
    let mut directory = World::new(FILE).directory;
    let request = Request::CreateToken {
        kind: TokenFor::Gateway {
            site: "hq".to_owned(),
        },
        expires: None,
    };
    let (edits, response) = ask(&directory, &request).unwrap();
    directory.apply(&edits[0]);
    let Response::TokenCreated { token, .. } = response else {
        panic!("{response:?}");
    };

    let (edits, response) = ask(&directory, &Request::Show).unwrap();

    assert_eq!(edits, []);
    let text = serde_json::to_string(&response).unwrap();
    let secret = token.expose().rsplit('.').next().unwrap();
    assert!(!text.contains(secret));
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["sites"][0]["name"], "hq");
    assert_eq!(shown["resources"][0]["type"], "cidr");
    assert_eq!(shown["resources"][0]["sites"][0], "hq");
    assert_eq!(shown["resources"][0]["filters"][0], "tcp/80-443");
    assert_eq!(shown["policies"][0]["resource"], "lan");
    assert_eq!(shown["tokens"][0]["kind"], "gateway");
    assert_eq!(shown["tokens"][0]["owner"], "hq");
    assert_eq!(shown["tokens"][0]["usable"], true);
}

#[test]
fn requests_and_answers_survive_the_socket() {
    let directory = World::new(FILE).directory;
    for request in [
        apply(FILE, true),
        Request::CreateToken {
            kind: TokenFor::Client {
                actor: "alice".to_owned(),
            },
            expires: Some(Duration::from_secs(5)),
        },
        Request::RevokeToken {
            id: TokenId(ids(404)),
        },
        Request::VerifyClient {
            id: ClientId(ids(404)),
            verified: true,
        },
        Request::Explain {
            actor: "alice".to_owned(),
            resource: "lan".to_owned(),
            remote_ip: Some([203, 0, 113, 9].into()),
            country: "DE".parse().ok(),
        },
        Request::Show,
        apply("[[site]]", false),
    ] {
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);

        let answer = ask(&directory, &request).map(|(_, response)| response);
        let line = serde_json::to_string(&answer).unwrap();
        assert!(!line.contains('\n'));
        let read: Result<Response, Failure> = serde_json::from_str(&line).unwrap();
        assert_eq!(read, answer);
    }
}

fn apply(text: &str, dry_run: bool) -> Request {
    Request::Apply {
        text: text.to_owned(),
        file_name: "t.toml".to_owned(),
        dry_run,
    }
}

fn ask(directory: &Directory, request: &Request) -> Result<(Vec<Edit>, Response), Failure> {
    let performed = performed(directory, request)?;
    match performed.answer {
        Answer::Known(response) => Ok((performed.edits, response)),
        Answer::Audit(_) | Answer::Backup(_) => panic!("{performed:?}"),
    }
}

fn performed(directory: &Directory, request: &Request) -> Result<Performed, Failure> {
    let mut random = StdRng::from_seed([5; 32]);
    let known = Known {
        directory,
        presence: &Presence::default(),
        locations: &Locations::default(),
        unix: 1000,
    };
    perform(&known, Who::Admin { uid: 7 }, request, &mut random)
}
