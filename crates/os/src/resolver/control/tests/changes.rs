//! Notice of changes.

use super::*;

/// More than it takes to notice a change.
const A_WHILE: Duration = Duration::from_millis(400);

#[test]
fn what_others_write_is_told_and_what_we_write_is_not() {
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        servers(&mut resolver).await;
        for n in 0..3 {
            resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
            resolver.apply(&wanted(&["100.100.111.2"])).await.unwrap();
            assert!(is_quiet(&mut resolver).await, "we write that");

            host.replace("resolv.conf", format!("nameserver 192.0.2.{n}\n"));
            change(&mut resolver).await;
            assert_eq!(servers(&mut resolver).await, [format!("192.0.2.{n}:53")]);
        }
        resolver.apply(&wanted(&["100.100.111.2"])).await.unwrap();
        resolver.revert().await.unwrap();
        assert!(is_quiet(&mut resolver).await, "we write that, too");

        // The same servers again, but not ours.
        resolver.apply(&wanted(&["100.100.111.2"])).await.unwrap();
        host.write("resolv.conf", "nameserver 192.0.2.2\n");
        change(&mut resolver).await;
        fs::remove_file(host.path("resolv.conf")).unwrap();
        change(&mut resolver).await;
        host.write("resolv.conf", ORIGINAL);
        change(&mut resolver).await;
    });
}

#[test]
fn a_change_just_before_our_own_is_told() {
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        host.replace("resolv.conf", "nameserver 192.0.2.99\n");
        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();

        change(&mut resolver).await;

        assert_eq!(servers(&mut resolver).await, ["192.0.2.99:53"]);
        assert!(is_quiet(&mut resolver).await);
    });
}

#[test]
fn a_wait_that_is_given_up_again_and_again_loses_nothing() {
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        let mut other = host.resolver(Some(Method::Off)).await.unwrap();
        host.replace("resolv.conf", "nameserver 192.0.2.99\n");

        let give_up = Duration::from_millis(7);
        let told = async { while timeout(give_up, resolver.changed()).await.is_err() {} };
        timeout(SOON, told).await.expect("the change is lost");
        change(&mut other).await;
    });
}

#[test]
fn links_are_watched_to_where_they_end() {
    let host = Host::new();
    fs::create_dir(host.path("run")).unwrap();
    host.write("run/a", "nameserver 192.0.2.1\n");
    host.write("run/b", "nameserver 192.0.2.2\n");
    symlink("run/a", host.path("resolv.conf")).unwrap();

    block_on(async {
        let mut resolver = host.resolver(Some(Method::Off)).await.unwrap();
        host.replace("run/a", "nameserver 192.0.2.11\n");
        change(&mut resolver).await;
        assert_eq!(servers(&mut resolver).await, ["192.0.2.11:53"]);

        symlink("run/b", host.path("link")).unwrap();
        fs::rename(host.path("link"), host.path("resolv.conf")).unwrap();
        change(&mut resolver).await;
        assert_eq!(servers(&mut resolver).await, ["192.0.2.2:53"]);

        host.write("run/b", "nameserver 192.0.2.22\n");
        change(&mut resolver).await;
        assert_eq!(servers(&mut resolver).await, ["192.0.2.22:53"]);
        host.write("run/a", "nameserver 192.0.2.12\n");
        assert!(
            is_quiet(&mut resolver).await,
            "nothing leads there any more"
        );
    });
}

#[test]
fn a_link_to_nothing_is_watched_for_what_may_come() {
    let host = Host::new();
    symlink("run/a", host.path("resolv.conf")).unwrap();

    block_on(async {
        // Without a directory there is nothing to watch but the clock.
        let mut resolver = host.resolver(None).await.unwrap();
        fs::create_dir(host.path("run")).unwrap();
        host.write("run/a", "nameserver 192.0.2.1\n");
        change(&mut resolver).await;
        assert_eq!(servers(&mut resolver).await, ["192.0.2.1:53"]);

        for _ in 0..2 {
            fs::remove_file(host.path("run/a")).unwrap();
            change(&mut resolver).await;
            host.write("run/a", "nameserver 192.0.2.1\n");
            change(&mut resolver).await;
        }
    });
}

#[test]
fn a_file_under_another_name_is_noticed() {
    // As in a container, where the file is a mount: its own directory tells nothing.
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);
    fs::create_dir(host.path("elsewhere")).unwrap();
    fs::hard_link(host.path("resolv.conf"), host.path("elsewhere/file")).unwrap();

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        host.write("elsewhere/file", "nameserver 192.0.2.99\n");
        change(&mut resolver).await;
        assert_eq!(servers(&mut resolver).await, ["192.0.2.99:53"]);
    });
}

#[test]
fn resolved_is_asked_when_its_files_change() {
    let host = Host::with_resolved();
    let listed = "Global:\nLink 9 (tun-test): 100.100.111.1\nLink 2 (eth0): 192.0.2";

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        // What the tool would list once the settings are set; it rewrites its file for that.
        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        host.write("dns", format!("{listed}.1\n"));
        servers(&mut resolver).await;
        host.replace("resolved/resolv.conf", "a\n");
        assert!(is_quiet(&mut resolver).await, "nothing is new");

        host.write("dns", format!("{listed}.2\n"));
        host.replace("resolved/resolv.conf", "b\n");
        change(&mut resolver).await;

        // Somebody takes our settings away.
        let without_ours = "Global:\nLink 9 (tun-test):\nLink 2 (eth0): 192.0.2.2\n";
        host.write("dns", without_ours);
        host.replace("resolved/resolv.conf", "c\n");
        change(&mut resolver).await;

        // It stops, and comes back before it can be asked: no file changes when it answers again.
        host.write("fail-dns", "");
        host.replace("resolved/resolv.conf", "d\n");
        change(&mut resolver).await;
        fs::remove_file(host.path("fail-dns")).unwrap();
        change(&mut resolver).await;
        assert_eq!(servers(&mut resolver).await, ["192.0.2.2:53"]);
    });
}

async fn change(resolver: &mut HostResolver) {
    timeout(SOON, resolver.changed())
        .await
        .expect("a change is told")
        .unwrap();
}

async fn is_quiet(resolver: &mut HostResolver) -> bool {
    timeout(A_WHILE, resolver.changed()).await.is_err()
}
