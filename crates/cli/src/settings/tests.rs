use super::*;

use std::fs;

fn settings<'a>(environment: &'a Environment, file: Option<&Path>) -> Settings<'a> {
    Settings::open(Role::Client, file, environment).unwrap()
}

#[test]
fn the_nearest_source_wins() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    fs::write(&file, "name = \"file\"\n").unwrap();
    let both = Environment::of(
        &[("CONNLIB_NAME", "ours"), ("FIREZONE_NAME", "theirs")],
        &[],
    );
    let theirs = Environment::of(&[("CONNLIB_NAME", ""), ("FIREZONE_NAME", "theirs")], &[]);
    let none = Environment::default();

    let name = |environment, file, flag| {
        settings(environment, file)
            .with_default::<String>(name::NAME, flag, "default")
            .unwrap()
    };
    assert_eq!(name(&both, Some(&file), Some("flag")), "flag");
    assert_eq!(name(&both, Some(&file), None), "ours");
    assert_eq!(name(&theirs, Some(&file), None), "theirs");
    assert_eq!(name(&none, Some(&file), None), "file");
    assert_eq!(name(&none, None, None), "default");
}

#[test]
fn a_value_that_is_not_understood_is_told_with_its_place() {
    let environment = Environment::of(&[("CONNLIB_READY_FD", "three")], &[]);

    let failure = settings(&environment, None)
        .optional::<u32>(name::READY_FD, None)
        .unwrap_err();

    assert_eq!(failure.exit, Exit::WrongUse);
    let text = failure.to_string();
    assert!(
        text.contains("CONNLIB_READY_FD") && text.contains("three"),
        "{text}"
    );
}

#[test]
fn a_variable_of_a_later_version_is_refused() {
    let environment = Environment::of(&[("CONNLIB_CHECK", "on")], &[]);

    let failure = Settings::open(Role::Client, None, &environment).unwrap_err();

    assert_eq!(failure.exit, Exit::WrongUse);
    assert!(failure.to_string().contains("not in this version"));
    assert!(Settings::open(Role::Relay, None, &environment).is_ok());
}

#[test]
fn a_switch_takes_the_usual_words() {
    let on = Environment::of(&[("CONNLIB_ALLOW_LOOPBACK_PEERS", "on")], &[]);
    let odd = Environment::of(&[("CONNLIB_ALLOW_LOOPBACK_PEERS", "maybe")], &[]);
    let none = Environment::default();
    let switch = |environment, flag| {
        Settings::open(Role::Relay, None, environment)
            .unwrap()
            .switch(name::ALLOW_LOOPBACK_PEERS, flag)
    };

    assert!(switch(&on, false).unwrap());
    assert!(switch(&none, true).unwrap());
    assert!(!switch(&none, false).unwrap());
    assert!(switch(&odd, false).is_err());
}

#[test]
fn what_is_printed_names_origins_and_hides_secrets() {
    let environment = Environment::of(&[("FIREZONE_NAME", "n")], &[("CONNLIB_SECRET", "hush")]);
    let mut settings = Settings::open(Role::Relay, None, &environment).unwrap();

    settings.optional::<String>(name::NAME, None).unwrap();
    settings.optional::<String>(name::API_URL, None).unwrap();
    settings
        .with_default::<u16>(name::LISTEN_PORT, None, "3478")
        .unwrap();
    assert!(settings.secret(name::SECRET, None).is_some());

    assert_eq!(
        settings.print(),
        "name = \"n\"  # from FIREZONE_NAME\n\
         # api-url is not given\n\
         listen-port = \"3478\"  # default\n\
         # secret = ***  # from CONNLIB_SECRET\n"
    );
}
