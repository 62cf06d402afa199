use std::net::SocketAddr;

use connlib_portal::server::{Database, Server, ServerConfig, ServerError, TlsError, TlsFiles};
use connlib_portal::store::StoreError;
use tempfile::TempDir;

use crate::FILE;
use crate::peers::{Portal, config, connect, device, request};

#[tokio::test]
async fn plaintext_stays_on_this_machine_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let everywhere = ServerConfig {
        listen: ([0, 0, 0, 0], 0).into(),
        ..config(&dir)
    };

    let refused = start(everywhere.clone()).await;
    assert!(
        matches!(refused, Err(ServerError::PlaintextRefused { .. })),
        "{refused:?}"
    );

    let insecure = ServerConfig {
        insecure_plaintext: true,
        ..everywhere
    };
    start(insecure).await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_as_such() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(config(&first)).await.unwrap();
    let taken = ServerConfig {
        listen: server.local_addr(),
        ..config(&second)
    };

    let error = start(taken).await;

    let Err(ServerError::Listen { listen, source }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(listen, server.local_addr());
    assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_certificate_that_can_not_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (one, other) = (pair(), pair());
    let cert = write("cert.pem", &one.cert.pem());
    let key = write("key.pem", &one.signing_key.serialize_pem());
    let other_key = write("other.pem", &other.signing_key.serialize_pem());
    let empty = write("empty.pem", "");
    let missing = dir.path().join("missing.pem");

    for (cert, key, named) in [
        (&missing, &key, &missing),
        (&empty, &key, &empty),
        (&cert, &missing, &missing),
        (&cert, &empty, &empty),
        (&cert, &cert, &cert),
        (&cert, &other_key, &other_key),
    ] {
        let config = ServerConfig {
            tls: Some(TlsFiles {
                cert: cert.clone(),
                key: key.clone(),
            }),
            ..config(&dir)
        };
        let Err(ServerError::Tls(error)) = start(config).await else {
            panic!("{cert:?} {key:?}");
        };
        let named = named.display().to_string();
        assert!(error.to_string().contains(&named), "{error}");
        assert_eq!(
            matches!(error, TlsError::Unusable { .. }),
            key == &other_key
        );
    }
}

#[tokio::test]
async fn a_database_that_can_not_be_used_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("portal.sqlite");
    std::fs::write(&file, "this is not a database ".repeat(100)).unwrap();

    let error = start(config(&dir)).await;
    assert!(
        matches!(error, Err(ServerError::Store(StoreError::NotOurs { .. }))),
        "{error:?}"
    );

    std::fs::remove_file(&file).unwrap();
    let _server = Server::start(config(&dir)).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let same = ServerConfig {
        db: Database::File(file),
        ..config(&other)
    };
    let error = start(same).await;
    assert!(
        matches!(error, Err(ServerError::Store(StoreError::InUse { .. }))),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_admin_socket_is_replaced_if_nobody_listens_at_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let bind = || drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

    bind();
    let server = Server::start(memory(&dir)).await.unwrap();
    let second = start(memory(&dir)).await;
    assert!(
        matches!(second, Err(ServerError::AdminSocket { .. })),
        "{second:?}"
    );
    server.stop().await;
    assert!(!path.exists());

    std::fs::write(&path, "a file of somebody").unwrap();
    let refused = start(memory(&dir)).await;
    assert!(
        matches!(refused, Err(ServerError::AdminSocket { .. })),
        "{refused:?}"
    );
    assert!(path.exists());
}

#[tokio::test]
async fn a_stopped_portal_leaves_its_port_and_its_database() {
    let dir = tempfile::tempdir().unwrap();
    let mut listen: SocketAddr = ([127, 0, 0, 1], 0).into();
    for _ in 0..3 {
        let config = ServerConfig {
            listen,
            ..config(&dir)
        };
        let server = Server::start(config).await.unwrap();
        listen = server.local_addr();
        server.stop().await;
    }
}

#[tokio::test]
async fn a_file_says_where_peers_are() {
    let dir = tempfile::tempdir().unwrap();
    let countries = dir.path().join("countries.csv");
    let start = || {
        Server::start(ServerConfig {
            countries: Some(countries.clone()),
            ..config(&dir)
        })
    };

    let unreadable = start().await.map(drop);
    assert!(
        matches!(unreadable, Err(ServerError::LocationsUnreadable { .. })),
        "{unreadable:?}"
    );
    std::fs::write(&countries, "127.0.0.0/8,DE\n127.0.0.1/8,FR").unwrap();
    let error = start().await.map(drop).unwrap_err();
    assert!(
        error.to_string().contains("countries.csv: line 2"),
        "{error}"
    );

    std::fs::write(&countries, "127.0.0.0/8,DE").unwrap();
    let server = start().await.unwrap();
    let portal = Portal { server, dir };
    let conditions = "conditions = [ { remote_ip = [\"127.0.0.1\"], country = [\"de\"] } ]";
    portal.apply(&format!("{FILE}{conditions}")).await;
    let (mut client, init) = portal.client("alice").await;
    assert_eq!(init["resources"][0]["name"], "lan");
    portal
        .apply(&format!("{FILE}{}", conditions.replace("de", "fr")))
        .await;
    client.hear("resource_deleted").await;
}

#[tokio::test]
async fn a_trusted_proxy_says_where_peers_come_from() {
    let conditions = "conditions = [ { remote_ip = [\"203.0.113.0/24\"] } ]";
    for (trusted, is_believed) in [("10.0.0.0/8", false), ("127.0.0.1,10.0.0.0/8", true)] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(ServerConfig {
            trusted_proxies: trusted.parse().unwrap(),
            ..config(&dir)
        });
        let portal = Portal {
            server: server.await.unwrap(),
            dir,
        };
        portal.apply(&format!("{FILE}{conditions}")).await;
        let token = portal.client_token("alice").await;
        let mut request = request(portal.addr(), &device("client", "x", 1), Some(&token));
        let hops = "198.51.100.66, 203.0.113.7".parse().unwrap();
        request.headers_mut().insert("x-forwarded-for", hops);
        let mut client = connect(portal.addr(), request).await.unwrap();

        let init = client.join("client").await;

        let seen = init["resources"].as_array().unwrap().len();
        assert_eq!(seen, usize::from(is_believed), "{trusted}");
    }
}

fn memory(dir: &TempDir) -> ServerConfig {
    ServerConfig {
        db: Database::Memory,
        ..config(dir)
    }
}

/// The error alone is of interest.
async fn start(config: ServerConfig) -> Result<(), ServerError> {
    Server::start(config).await.map(drop)
}
