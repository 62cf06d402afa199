//! The floors of ARCHITECTURE.md: a crate uses crates on lower floors only, and the pure ones read no clock and open no
//! socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The crates from the lowest floor up.
const FLOORS: [&[&str]; 5] = [
    &["connlib-wire", "connlib-os"],
    &["connlib-link"],
    &["connlib-tunnel", "connlib-relay", "connlib-portal"],
    &["connlib"],
    &["connlib-cli"],
];

/// What is never shipped, and may use everything but the program; a later one the earlier ones as well.
const DEVELOPMENT: [&str; 2] = ["connlib-sim", "connlib-fuzz-entries"];

/// The one edge within a floor.
const SIDEWAYS: (&str, &str) = ("connlib-os", "connlib-wire");

/// The crates that only decide. The portal does so without its feature `server`.
const PURE: [&str; 5] = [
    "connlib-wire",
    "connlib-link",
    "connlib-tunnel",
    "connlib-relay",
    "connlib-portal",
];

/// What no pure crate may say.
const FORBIDDEN: [&str; 4] = ["Instant::now", "SystemTime::now", "UdpSocket", "tokio"];

#[test]
fn each_crate_uses_lower_floors_only() {
    let packages = packages();
    for (name, package) in &packages {
        let dependencies = package["dependencies"].as_array().unwrap();
        for dependency in dependencies {
            let used = dependency["name"].as_str().unwrap();
            let is_for_tests = dependency["kind"] == "dev";
            if !packages.contains_key(used) || is_for_tests {
                continue;
            }
            assert!(may_use(name, used), "{name} must not use {used}");
        }
    }
}

#[test]
fn all_crates_have_a_floor() {
    for name in packages().keys() {
        assert!(
            DEVELOPMENT.contains(&name.as_str()) || floor_of(name).is_some(),
            "{name} has no floor; ARCHITECTURE.md and this test name one"
        );
    }
}

#[test]
fn pure_crates_bring_no_runtime() {
    for name in PURE {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--locked", "--package", name])
            .args([
                "--no-default-features",
                "--edges",
                "normal",
                "--prefix",
                "none",
            ])
            .current_dir(root())
            .output()
            .unwrap();
        let tree = String::from_utf8(output.stdout).unwrap();
        assert!(
            tree.starts_with(name),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );

        for line in tree.lines() {
            let used = line.split(' ').next().unwrap();
            assert!(
                !["mio", "socket2", "tokio"].contains(&used),
                "{name} brings {used}"
            );
        }
    }
}

#[test]
fn pure_crates_read_no_clock_and_open_no_socket() {
    for name in PURE {
        let folder = name.strip_prefix("connlib-").unwrap();
        let sources = sources_of(&root().join("crates").join(folder).join("src/lib.rs"));
        assert!(sources.len() > 1, "{name} has modules");

        for (path, text) in sources {
            for (line, number) in text.lines().zip(1..) {
                let code = line.split("//").next().unwrap();
                for forbidden in FORBIDDEN {
                    assert!(
                        !code.contains(forbidden),
                        "{}:{number}: {forbidden}",
                        path.display()
                    );
                }
            }
        }
    }
}

#[test]
fn the_rule_is_the_one_that_is_drawn() {
    for (user, used) in [
        ("connlib-cli", "connlib-os"),
        ("connlib", "connlib-tunnel"),
        ("connlib-tunnel", "connlib-link"),
        ("connlib-os", "connlib-wire"),
        ("connlib-sim", "connlib"),
    ] {
        assert!(may_use(user, used), "{user} -> {used}");
    }
    for (user, used) in [
        ("connlib-wire", "connlib-os"),
        ("connlib-relay", "connlib-tunnel"),
        ("connlib-link", "connlib-tunnel"),
        ("connlib-sim", "connlib-cli"),
        ("connlib", "connlib-sim"),
    ] {
        assert!(!may_use(user, used), "{user} -> {used}");
    }
}

#[test]
fn modules_for_tests_and_features_are_not_read() {
    let text = "mod a;\n#[cfg(feature = \"server\")]\npub mod b;\n#[cfg(test)]\nmod tests;\npub(crate) mod c;\n";
    assert_eq!(modules(text), ["a", "c"]);

    let text =
        "fn f() {}\n\n#[cfg(test)]\n#[expect(x)]\nmod tests {\n    fn g() { Instant::now() }\n}\n";
    assert!(!shipped(text).contains("now"));
    assert!(shipped(text).contains("fn f"));
}

fn may_use(user: &str, used: &str) -> bool {
    if (user, used) == SIDEWAYS {
        return true;
    }

    match (floor_of(user), floor_of(used)) {
        (Some(user), Some(used)) => used < user,
        // Only the development crates have no floor.
        (None, Some(_)) => used != "connlib-cli",
        (None, None) => {
            let place = |name| DEVELOPMENT.iter().position(|other| *other == name);
            place(used) < place(user)
        }
        (Some(_), None) => false,
    }
}

fn floor_of(name: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&name))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The workspace's packages by name.
fn packages() -> BTreeMap<String, Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--offline",
            "--locked",
            "--no-deps",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();

    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            (
                package["name"].as_str().unwrap().to_owned(),
                package.clone(),
            )
        })
        .collect()
}

/// The files of a crate that are compiled without features and not for tests, with what of them is.
fn sources_of(path: &Path) -> Vec<(PathBuf, String)> {
    let text = shipped(&fs::read_to_string(path).unwrap()).to_owned();
    let folder = match path.file_name().unwrap().to_str().unwrap() {
        "lib.rs" => path.parent().unwrap().to_owned(),
        _ => path.with_extension(""),
    };

    let below = modules(&text)
        .into_iter()
        .flat_map(|module| sources_of(&folder.join(format!("{module}.rs"))));
    let below: Vec<_> = below.collect();
    [(path.to_owned(), text)].into_iter().chain(below).collect()
}

/// What comes before the tests at the bottom of a file.
fn shipped(text: &str) -> &str {
    let Some(tests_at) = text.find("\nmod tests {") else {
        return text;
    };
    let before = &text[..tests_at];

    &before[..before.rfind("#[cfg(test)]").unwrap_or(tests_at)]
}

/// The modules in files of their own that no condition stands before.
fn modules(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_conditional = false;
    for line in text.lines() {
        let declared = line
            .strip_prefix("mod ")
            .or_else(|| line.strip_prefix("pub mod "))
            .or_else(|| line.strip_prefix("pub(crate) mod "))
            .or_else(|| line.strip_prefix("pub(super) mod "))
            .and_then(|rest| rest.strip_suffix(';'));
        if let Some(module) = declared.filter(|_| !is_conditional) {
            found.push(module.to_owned());
        }
        is_conditional = match line.starts_with("#[") {
            true => is_conditional || line.starts_with("#[cfg("),
            false => false,
        };
    }

    found
}
