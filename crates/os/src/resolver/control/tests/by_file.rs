//! By `/etc/resolv.conf`.

use super::*;

#[test]
fn the_file_is_rewritten_in_place_and_restored_byte_by_byte() {
    for original in [
        ORIGINAL.as_bytes(),
        b"",
        b"nameserver 192.0.2.1",
        b"\xff\xfe\0 no text\r\n\n\nnameserver 192.0.2.1\n\0",
        "# a large one\n".repeat(80_000).as_bytes(),
    ] {
        let host = Host::new();
        let file = host.path("resolv.conf");
        let backup = host.path("resolv.conf.before-connlib");
        fs::write(&file, original).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&file).unwrap();

        block_on(async {
            let mut resolver = host.resolver(None).await.unwrap();
            assert_eq!(resolver.method(), Method::ResolvConf);
            assert_eq!(fs::read(&file).unwrap(), original, "nothing is set yet");
            resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
            let now = host.read("resolv.conf");
            assert!(now.contains("nameserver 100.100.111.1\n"));
            resolver.revert().await.unwrap();
        });

        assert_eq!(fs::read(&file).unwrap(), original);
        assert_eq!(fs::read(&backup).unwrap(), original);
        assert_eq!(fs::metadata(&file).unwrap().ino(), before.ino());
        for path in [file, backup] {
            let after = fs::metadata(path).unwrap();
            assert_eq!(
                (after.mode(), after.uid(), after.gid()),
                (before.mode(), before.uid(), before.gid())
            );
        }
    }
}

#[test]
fn the_text_has_the_options_of_the_original_and_the_search_domain_that_is_wanted() {
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);

    block_on(async {
        let mut resolver = host.resolver(Some(Method::ResolvConf)).await.unwrap();
        let search = Wanted {
            search: Some("corp.test".into()),
            ..wanted(&["100.100.111.1", "fd00::1"])
        };
        // The third time they are other ones.
        for wanted in [&search, &search, &wanted(&["100.100.111.2"])] {
            resolver.apply(wanted).await.unwrap();

            let now = Resolvers::read(&host.path("resolv.conf")).unwrap();
            let addresses: Vec<_> = now.servers.iter().map(SocketAddr::ip).collect();
            assert_eq!(addresses, wanted.servers);
            assert_eq!(now.search.first(), wanted.search.as_ref());
            let text = host.read("resolv.conf");
            assert!(text.contains("options ndots:1\n"), "{text}");
            assert!(text.contains("options edns0\n"), "{text}");
            assert!(!text.contains("ndots:3"), "{text}");
            let system = resolver.system().await.unwrap();
            assert_eq!(system, Resolvers::parse(ORIGINAL.as_bytes()));
        }
        assert_eq!(host.read("resolv.conf.before-connlib"), ORIGINAL);
    });
}

#[test]
fn without_servers_the_file_stays_or_becomes_what_it_was() {
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        resolver.apply(&wanted(&[])).await.unwrap();
        assert_eq!(host.read("resolv.conf"), ORIGINAL);
        assert!(!host.path("resolv.conf.before-connlib").exists());

        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        resolver.apply(&wanted(&[])).await.unwrap();
        assert_eq!(host.read("resolv.conf"), ORIGINAL);
        resolver.revert().await.unwrap();
        assert_eq!(host.read("resolv.conf"), ORIGINAL);
    });
}

#[test]
fn a_drop_restores() {
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
    });

    assert_eq!(host.read("resolv.conf"), ORIGINAL);
}

#[test]
fn what_a_killed_run_has_left_is_restored_and_never_backed_up() {
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);

    block_on(async {
        crash(&host).await;
        assert_ne!(host.read("resolv.conf"), ORIGINAL);
        let mut resolver = host.resolver(None).await.unwrap();
        assert_eq!(host.read("resolv.conf"), ORIGINAL);
        resolver.apply(&wanted(&["100.100.111.2"])).await.unwrap();
        assert_eq!(host.read("resolv.conf.before-connlib"), ORIGINAL);
        drop(resolver);

        crash(&host).await;
        HostResolver::recover(&host.paths).unwrap();
        assert_eq!(host.read("resolv.conf"), ORIGINAL);

        // The marker comes while this one runs: another run that is killed.
        let mut resolver = host.resolver(None).await.unwrap();
        crash(&host).await;
        resolver.apply(&wanted(&["100.100.111.2"])).await.unwrap();
        assert_eq!(host.read("resolv.conf.before-connlib"), ORIGINAL);
        resolver.revert().await.unwrap();
        assert_eq!(host.read("resolv.conf"), ORIGINAL);
    });
}

#[test]
fn one_at_a_time_has_charge_of_the_file() {
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);

    block_on(async {
        let mut first = host.resolver(None).await.unwrap();
        first.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        let ours = host.read("resolv.conf");
        let mut second = host.resolver(Some(Method::ResolvConf)).await.unwrap();
        HostResolver::recover(&host.paths).unwrap();
        assert_eq!(host.read("resolv.conf"), ours, "its run hasn't ended");
        let system = second.system().await.unwrap();
        assert_eq!(system, Resolvers::parse(ORIGINAL.as_bytes()));
        let refused = second.apply(&wanted(&["100.100.111.2"])).await;
        assert!(matches!(refused, Err(ResolverError::InUse { .. })));
        second.revert().await.unwrap();
        assert_eq!(host.read("resolv.conf"), ours);

        // The first one ends, in whichever way, and the second one follows.
        first.revert().await.unwrap();
        second.apply(&wanted(&["100.100.111.2"])).await.unwrap();
        let refused = first.apply(&wanted(&["100.100.111.1"])).await;
        assert!(matches!(refused, Err(ResolverError::InUse { .. })));
        abandon(second);
        first.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        assert_eq!(host.read("resolv.conf.before-connlib"), ORIGINAL);
    });
    assert_eq!(host.read("resolv.conf"), ORIGINAL);
}

#[test]
fn what_firezone_has_left_is_restored_even_above_our_own() {
    let firezones = "# BEGIN Firezone DNS configuration\nnameserver 100.100.111.9\n";
    let host = Host::new();
    host.write("resolv.conf", firezones);
    host.write("resolv.conf.before-firezone", ORIGINAL);

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        assert_eq!(host.read("resolv.conf"), ORIGINAL);

        // Firezone's client starts while we run, and both are killed.
        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        host.write("resolv.conf.before-firezone", host.read("resolv.conf"));
        host.write("resolv.conf", firezones);
        abandon(resolver);
        HostResolver::recover(&host.paths).unwrap();
        assert_eq!(host.read("resolv.conf"), ORIGINAL);
    });
}

#[test]
fn without_a_backup_only_our_own_part_is_taken_out() {
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        fs::remove_file(host.path("resolv.conf.before-connlib")).unwrap();
        assert!(
            servers(&mut resolver).await.is_empty(),
            "nobody knows them any more"
        );
        resolver.apply(&wanted(&["100.100.111.2"])).await.unwrap();
        assert!(host.read("resolv.conf").contains("options edns0\n"));
        let appended = host.read("resolv.conf") + "nameserver 192.0.2.7\n";
        host.write("resolv.conf", appended);
        resolver.revert().await.unwrap();
        assert_eq!(
            host.read("resolv.conf"),
            "options edns0\nnameserver 192.0.2.7\n"
        );

        // A backup that is our own text is none.
        crash(&host).await;
        host.write("resolv.conf.before-connlib", host.read("resolv.conf"));
        HostResolver::recover(&host.paths).unwrap();
        assert_eq!(host.read("resolv.conf"), "options edns0\n");
    });
}

#[test]
fn what_somebody_writes_meanwhile_becomes_the_original() {
    let other = "nameserver 192.0.2.200\n";
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        host.replace("resolv.conf", other);
        assert_eq!(servers(&mut resolver).await, ["192.0.2.200:53"]);
        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        assert_eq!(host.read("resolv.conf.before-connlib"), other);
        assert!(host.read("resolv.conf").contains("100.100.111.1"));
        resolver.revert().await.unwrap();
        assert_eq!(host.read("resolv.conf"), other);

        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        host.write("resolv.conf", ORIGINAL);
        resolver.revert().await.unwrap();
        assert_eq!(host.read("resolv.conf"), ORIGINAL, "it is theirs");

        // An edit that keeps our first line is no text of somebody else's.
        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        let edited = host
            .read("resolv.conf")
            .replace("100.100.111.1", "192.0.2.66");
        host.write("resolv.conf", edited);
        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        assert!(!host.read("resolv.conf").contains("192.0.2.66"));
        resolver.revert().await.unwrap();
        assert_eq!(host.read("resolv.conf"), ORIGINAL);
    });
}

#[test]
fn without_room_for_a_backup_the_file_stays() {
    let host = Host::new();
    host.write("resolv.conf", ORIGINAL);
    fs::create_dir(host.path("resolv.conf.before-connlib")).unwrap();

    block_on(async {
        let mut resolver = host.resolver(None).await.unwrap();
        let error = resolver.apply(&wanted(&["100.100.111.1"])).await;

        let text = error.unwrap_err().to_string();
        let names = format!(
            "can't back up to {}.before-connlib: ",
            host.path("resolv.conf").display()
        );
        assert!(text.starts_with(&names), "{text}");
        resolver.revert().await.unwrap();
    });
    assert_eq!(host.read("resolv.conf"), ORIGINAL);
    assert!(!host.path("resolv.conf.before-connlib.new").exists());
}

#[test]
fn what_is_no_regular_file_is_refused_with_its_name() {
    let host = Host::new();
    let refusal = async || host.resolver(Some(Method::ResolvConf)).await.unwrap_err();

    block_on(async {
        let error = refusal().await;
        assert!(matches!(error, ResolverError::Missing { .. }), "{error}");

        fs::create_dir(host.path("resolv.conf")).unwrap();
        let error = refusal().await;
        assert!(matches!(error, ResolverError::NotAFile { .. }), "{error}");
        fs::remove_dir(host.path("resolv.conf")).unwrap();

        host.write("static", ORIGINAL);
        symlink("static", host.path("resolv.conf")).unwrap();
        let error = refusal().await;
        assert!(matches!(error, ResolverError::Symlink { .. }), "{error}");
        let names = format!(
            "{} is a link to static,",
            host.path("resolv.conf").display()
        );
        assert!(error.to_string().starts_with(&names), "{error}");

        // It becomes a link during the run.
        fs::remove_file(host.path("resolv.conf")).unwrap();
        host.write("resolv.conf", ORIGINAL);
        let mut resolver = host.resolver(Some(Method::ResolvConf)).await.unwrap();
        resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
        fs::remove_file(host.path("resolv.conf")).unwrap();
        symlink("static", host.path("resolv.conf")).unwrap();
        let refused = resolver.apply(&wanted(&["100.100.111.1"])).await;
        assert!(matches!(refused, Err(ResolverError::Symlink { .. })));
        resolver.revert().await.unwrap();
        assert_eq!(host.read("static"), ORIGINAL);
    });
}

/// Sets something and ends as a killed process does.
async fn crash(host: &Host) {
    let mut resolver = host.resolver(Some(Method::ResolvConf)).await.unwrap();
    resolver.apply(&wanted(&["100.100.111.1"])).await.unwrap();
    abandon(resolver);
}

fn abandon(mut resolver: HostResolver) {
    let Control::ResolvConf(file) = &mut resolver.control else {
        panic!("it sets something else");
    };
    file.abandon();
}
