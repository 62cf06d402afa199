//! Which proxy leads to the portal: ours to say, or the variables that all programs know.

use connlib::Proxy;

use crate::exit::{Exit, Failure};
use crate::settings::{Found, Origin, Settings, name};

/// Says that the usual variables don't count.
const OFF: &str = "off";

/// Finds the proxy: flag, our variable, configuration file, the usual variables. Neither `--print-config` nor a message shows its
/// credentials.
///
/// # Errors
///
/// Exit 2: what is given is no address of a proxy, or that of one that can't be used.
pub(crate) fn find(
    settings: &mut Settings<'_>,
    flag: Option<&str>,
    api_url: Option<&str>,
) -> Result<Option<Proxy>, Failure> {
    let given = settings.find(name::PROXY, flag)?;
    let Some(found) = given.or_else(|| usual(settings, api_url?)) else {
        settings.show(name::PROXY, None);
        return Ok(None);
    };
    if found.text == OFF {
        settings.show(name::PROXY, Some(&found));
        return Ok(None);
    }

    let origin = found.origin;
    let proxy: Proxy = found.text.parse().map_err(|error| {
        Failure::new(
            Exit::WrongUse,
            format_args!("{origin}: {error}, or say --proxy {OFF}"),
        )
    })?;
    let shown = Found {
        text: proxy.to_string(),
        origin,
    };
    settings.show(name::PROXY, Some(&shown));

    Ok(Some(proxy))
}

fn usual(settings: &Settings<'_>, api_url: &str) -> Option<Found> {
    let environment = settings.environment();
    let variable = |name| Some(environment.value(name)?.to_string_lossy().into_owned());
    let (name, text) = Proxy::usual(api_url, variable)?;

    Some(Found {
        text: text.expose().to_owned(),
        origin: Origin::Environment(name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::settings::Role;

    const PORTAL: &str = "wss://portal.example";

    #[test]
    fn ours_counts_before_the_usual_and_off_before_all() {
        let usual = ("HTTPS_PROXY", "http://usual:1");
        let ours = ("CONNLIB_PROXY", "http://ours:2");
        for (flag, set, expected) in [
            (Some("flag:3"), &[usual, ours][..], Some("http://flag:3")),
            (None, &[usual, ours], Some("http://ours:2")),
            (None, &[usual], Some("http://usual:1")),
            (None, &[usual, ("NO_PROXY", "portal.example")], None),
            (None, &[ours, ("NO_PROXY", "*")], Some("http://ours:2")),
            (Some(OFF), &[usual, ours], None),
            (None, &[usual, ("CONNLIB_PROXY", OFF)], None),
            (None, &[], None),
        ] {
            for role in [Role::Client, Role::Gateway, Role::Relay] {
                let environment = Environment::of(set, &[]);
                let mut settings = Settings::open(role, None, &environment).unwrap();

                let proxy = find(&mut settings, flag, Some(PORTAL)).unwrap();
                let proxy = proxy.map(|proxy| proxy.to_string());
                assert_eq!(proxy.as_deref(), expected, "{flag:?} {set:?}");
            }
        }
    }

    #[test]
    fn a_password_is_shown_neither_by_print_config_nor_by_an_error() {
        let environment = Environment::of(&[("https_proxy", "http://u:hush@proxy:1")], &[]);
        let mut settings = Settings::open(Role::Client, None, &environment).unwrap();
        assert!(find(&mut settings, None, Some(PORTAL)).unwrap().is_some());
        assert_eq!(
            settings.print(),
            "proxy = \"http://proxy:1\"  # from https_proxy\n"
        );

        for (given, expected) in [
            ("socks5://u:hush@proxy", "SOCKS"),
            ("http://u:hush@", "no host"),
        ] {
            let environment = Environment::of(&[("ALL_PROXY", given)], &[]);
            let mut settings = Settings::open(Role::Client, None, &environment).unwrap();
            let failure = find(&mut settings, None, Some(PORTAL)).unwrap_err();
            let told = failure.to_string();
            assert_eq!(failure.exit, Exit::WrongUse);
            assert!(
                told.starts_with("ALL_PROXY: ") && told.contains(expected),
                "{told}"
            );
            assert!(!told.contains("hush"), "{told}");
        }
    }
}
