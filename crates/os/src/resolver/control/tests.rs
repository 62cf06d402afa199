use super::*;

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

mod by_file;
mod by_resolved;
mod changes;

#[test]
fn what_leads_to_nothing_that_can_be_set_is_left_alone() {
    let host = Host::new();
    symlink("elsewhere", host.paths.resolv_conf.as_path()).unwrap();
    host.write("elsewhere", "nameserver 192.0.2.1\n");

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        assert_eq!(resolver.method(), Method::Off);
        assert_eq!(servers(&mut resolver).await, ["192.0.2.1:53"]);

        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        resolver.revert().await.unwrap();
        resolver.flush().await;
    });
    assert_eq!(host.read("elsewhere"), "nameserver 192.0.2.1\n");
    assert!(host.calls().is_empty(), "nobody leads there");
}

#[test]
fn a_machine_without_a_file_has_no_resolvers() {
    let host = Host::new();

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();

        assert_eq!(resolver.method(), Method::Off);
        assert_eq!(resolver.system().await.unwrap(), Resolvers::default());
    });
}

#[test]
fn a_runtime_is_needed() {
    let host = Host::new();
    let mut work = std::pin::pin!(host.resolver(None));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());

    let std::task::Poll::Ready(refused) = work.as_mut().poll(&mut context) else {
        panic!("it waits for nothing");
    };
    assert!(matches!(refused, Err(ResolverError::NoRuntime)));
}

#[test]
fn a_task_may_own_it() {
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);
    let paths = host.paths.clone();

    block_on(async {
        let task = tokio::spawn(async move {
            let mut resolver = HostResolver::new(None, "tun-test", paths).await?;
            resolver.apply(&wanted(&["100.100.111.1"])).await?;
            resolver.changed().await
        });
        while !host.read("resolv.conf").contains("100.100.111.1") {
            assert!(!task.is_finished(), "it failed");
            tokio::task::yield_now().await;
        }
        host.replace("resolv.conf", "nameserver 192.0.2.99\n");
        timeout(SOON, task).await.unwrap().unwrap().unwrap();
    });
    assert_eq!(host.read("resolv.conf"), "nameserver 192.0.2.99\n");
}

#[test]
fn a_search_domain_must_be_one() {
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);
    let long = "a.".repeat(127);

    block_on(async {
        let mut resolver = host.resolver(Some(Method::ResolvConf)).await.unwrap();
        for good in [
            "corp.test",
            "corp.test.",
            "a",
            "_tcp.x-1.test",
            long.trim_end_matches('.'),
        ] {
            let wanted = Wanted {
                search: Some(good.into()),
                ..wanted(&["100.100.111.1"])
            };
            resolver.apply(&wanted).await.unwrap();
        }
        let before = host.read("resolv.conf");
        let long = format!("{long}abc");
        for bad in [
            "",
            ".",
            "a..b",
            "--help",
            "a.-b",
            "~.",
            "a b",
            "a\nnameserver 192.0.2.66",
            "ä.test",
            &long,
        ] {
            let wanted = Wanted {
                search: Some(bad.into()),
                ..wanted(&["100.100.111.1"])
            };
            let refused = resolver.apply(&wanted).await.unwrap_err();
            assert!(matches!(&refused, ResolverError::NotADomain { domain } if domain == bad));
        }
        assert_eq!(host.read("resolv.conf"), before);
    });
}

const ORIGINAL: &str = "# by hand\nnameserver 192.0.2.1\nnameserver fe80::1%lo\nsearch home.test\noptions edns0 ndots:3\n";

/// Longer than any burst.
const SOON: Duration = Duration::from_secs(10);

/// A machine's settings in a directory.
struct Host {
    directory: TempDir,
    paths: Paths,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let tool =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("src/resolver/resolved/fake-resolvectl");
        symlink(tool, path("resolvectl")).unwrap();
        fs::create_dir(path("resolved")).unwrap();

        Self {
            paths: Paths {
                resolv_conf: path("resolv.conf"),
                resolved: path("resolved"),
                resolvectl: path("resolvectl"),
            },
            directory,
        }
    }

    /// One where programs ask systemd-resolved.
    fn with_resolved() -> Self {
        let host = Self::new();
        host.write("resolved/stub-resolv.conf", "nameserver 127.0.0.53\n");
        symlink("resolved/stub-resolv.conf", host.path("resolv.conf")).unwrap();
        host.write(
            "dns",
            "Global: 192.0.2.53\nLink 2 (eth0): 192.0.2.1 fe80::1\nLink 9 (tun-test):\n",
        );
        host.write(
            "domain",
            "Global:\nLink 2 (eth0): home.test ~.\nLink 9 (tun-test):\n",
        );

        host
    }

    async fn resolver(&self, method: Option<Method>) -> Result<HostResolver, ResolverError> {
        HostResolver::new(method, "tun-test", self.paths.clone()).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).unwrap();
    }

    /// Writes another file and puts it in the place of this one, as most programs do.
    fn replace(&self, name: &str, contents: impl AsRef<[u8]>) {
        self.write("replacement", contents);
        fs::rename(self.path("replacement"), self.path(name)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// What the tool was called with since the last time.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("calls"));

        calls.lines().map(String::from).collect()
    }
}

fn wanted(servers: &[&str]) -> Wanted {
    Wanted {
        servers: servers
            .iter()
            .map(|server| server.parse().unwrap())
            .collect(),
        search: None,
    }
}

async fn servers(resolver: &mut HostResolver) -> Vec<String> {
    let system = resolver.system().await.unwrap();

    system.servers.iter().map(ToString::to_string).collect()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}
