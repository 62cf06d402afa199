//! By systemd-resolved, with a tool that only pretends.

use super::*;

#[test]
fn it_is_taken_if_the_file_leads_to_it_and_it_answers() {
    block_on(async {
        let host = Host::with_resolved();
        let method = async || host.resolver(None).await.unwrap().method();
        assert_eq!(method().await, Method::Resolved);

        // It doesn't answer, and the file is its own.
        host.write("fail-dns", "Failed to get global data: it is gone\n");
        assert_eq!(method().await, Method::Off);
        let error = host.resolver(Some(Method::Resolved)).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("`resolvectl dns`"), "{text}");
        assert!(text.contains("it is gone"), "{text}");

        // A copy of its file can be written.
        fs::remove_file(host.path("resolv.conf")).unwrap();
        host.write("resolv.conf", "nameserver 127.0.0.53\n");
        assert_eq!(method().await, Method::ResolvConf);
        fs::remove_file(host.path("fail-dns")).unwrap();
        assert_eq!(method().await, Method::Resolved);
    });
}

#[test]
fn its_list_of_upstream_servers_leads_to_it_too() {
    let host = Host::with_resolved();
    host.write("resolved/resolv.conf", "nameserver 192.0.2.1\n");
    fs::remove_file(host.path("resolv.conf")).unwrap();
    symlink("resolved/resolv.conf", host.path("resolv.conf")).unwrap();

    let method = block_on(async { host.resolver(None).await.unwrap().method() });

    assert_eq!(method, Method::Resolved);
}

#[test]
fn a_missing_tool_is_told() {
    let host = Host::with_resolved();
    fs::remove_file(host.path("resolvectl")).unwrap();

    block_on(async {
        let resolver = host.resolver(None).await.unwrap();
        assert_eq!(resolver.method(), Method::Off);
        let error = host.resolver(Some(Method::Resolved)).await.unwrap_err();
        assert!(matches!(error, ResolverError::NotStarted { .. }), "{error}");
    });
}

#[test]
fn the_settings_of_the_link_are_set_and_taken_back() {
    let host = Host::with_resolved();

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        host.calls();
        resolver.revert().await.unwrap();
        resolver.apply(&wanted(&[])).await.unwrap();
        assert!(host.calls().is_empty(), "there is nothing to take back");

        let servers = ["100.100.111.1", "fd00::1"];
        resolver.apply(&wanted(&servers)).await.unwrap();
        assert_eq!(
            host.calls(),
            [
                "dns|tun-test|100.100.111.1|fd00::1|",
                "domain|tun-test|~.|",
                "default-route|tun-test|true|",
                "llmnr|tun-test|false|"
            ]
        );

        let search = Wanted {
            search: Some("corp.test".into()),
            ..wanted(&["100.100.111.1"])
        };
        resolver.apply(&search).await.unwrap();
        assert_eq!(host.calls()[1], "domain|tun-test|corp.test|~.|");

        resolver.flush().await;
        assert_eq!(host.calls(), ["flush-caches|"]);
        resolver.revert().await.unwrap();
        resolver.revert().await.unwrap();
        assert_eq!(host.calls(), ["revert|tun-test|"]);
    });
}

#[test]
fn the_system_is_everything_but_our_link() {
    let host = Host::with_resolved();
    host.write(
        "dns",
        "Global: 192.0.2.53\nLink 2 (eth0): 192.0.2.1 fe80::1\nLink 9 (tun-test): 100.100.111.1\n",
    );
    host.write(
        "domain",
        "Global:\nLink 2 (eth0): home.test ~.\nLink 9 (tun-test): corp.test ~.\n",
    );

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();

        let system = resolver.system().await.unwrap();

        assert_eq!(system.search, ["home.test"]);
        assert_eq!(
            servers(&mut resolver).await,
            ["192.0.2.53:53", "192.0.2.1:53", "[fe80::1%2]:53"]
        );
    });
}

#[test]
fn half_of_the_settings_is_none() {
    let host = Host::with_resolved();

    block_on(async {
        let mut resolver = host.resolver(Some(Method::Resolved)).await.unwrap();
        host.write("fail-domain", "Failed to set domain:\nnot permitted\n");
        host.calls();

        let refused = resolver.apply(&wanted(&["100.100.111.1"])).await;

        assert_eq!(
            refused.unwrap_err().to_string(),
            "`resolvectl domain tun-test` failed: Failed to set domain:; not permitted; see `resolvectl status`"
        );
        assert_eq!(
            host.calls(),
            [
                "dns|tun-test|100.100.111.1|",
                "domain|tun-test|~.|",
                "revert|tun-test|"
            ]
        );
        assert!(
            resolver.system().await.is_err(),
            "it lists no domains either"
        );
    });
}

#[test]
fn a_link_that_is_gone_needs_no_revert() {
    let host = Host::with_resolved();
    host.write("fail-revert", "Failed to resolve interface\n");

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        resolver.revert().await.unwrap();

        // This link is there.
        let there = HostResolver::new(None, "lo", host.paths.clone());
        let mut resolver = there.await.unwrap();
        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        let error = resolver.revert().await.unwrap_err();
        assert!(matches!(error, ResolverError::Refused { .. }), "{error}");
    });
}
