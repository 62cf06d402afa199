//! Where a token comes from, and what is refused (cli.md "Settings").

use std::path::{Path, PathBuf};

use connlib_wire::secret::Secret;

use crate::exit::{Exit, Failure};
use crate::private_file::{MAX_LEN, Privacy, PrivateFile};
use crate::settings::{Found, Origin, Role, Settings, name};

/// Where a token is to be taken from.
#[derive(Debug)]
pub(crate) enum TokenSource {
    /// It was in the environment.
    Given(Secret),
    /// It is in a file that must be private.
    File(PathBuf),
    /// systemd put it into a directory that is private by itself.
    Credential(PathBuf),
    /// Nobody has said.
    Missing { role: Role },
}

/// The variables for the token itself, the first one first.
const VARIABLES: [&str; 2] = ["CONNLIB_TOKEN", "FIREZONE_TOKEN"];

/// What a credential of systemd may be called (systemd.exec(5), `LoadCredential=`); gateway.md §14.1 has Firezone's.
const CREDENTIALS: [&str; 3] = ["CONNLIB_TOKEN", "FIREZONE_TOKEN", "token"];

/// Where Firezone's client keeps its token (client.md §13).
const FIREZONE_CLIENT_FILE: &str = "/etc/dev.firezone.client/token";

const TOKEN_FILE: PrivateFile = PrivateFile {
    what: "token file",
    flag: "--token-file",
};

impl TokenSource {
    /// Finds out where the token is: flag, environment, configuration file, credentials of systemd, Firezone's file.
    ///
    /// # Errors
    ///
    /// A variable isn't UTF-8.
    pub(crate) fn find(
        settings: &mut Settings<'_>,
        role: Role,
        flag: Option<&str>,
    ) -> Result<Self, Failure> {
        if flag.is_none()
            && let Some((variable, secret)) = from_environment(settings)
        {
            settings.show_secret(name::TOKEN, Origin::Environment(variable));
            return Ok(Self::Given(secret));
        }

        let found = settings.find(name::TOKEN_FILE, flag)?;
        settings.show(name::TOKEN_FILE, found.as_ref());
        if let Some(Found { text, .. }) = found {
            return Ok(Self::File(text.into()));
        }
        if let Some(path) = credential(settings) {
            return Ok(Self::Credential(path));
        }

        let of_firezone = Path::new(FIREZONE_CLIENT_FILE);
        if role == Role::Client && of_firezone.exists() {
            return Ok(Self::File(of_firezone.to_owned()));
        }
        Ok(Self::Missing { role })
    }

    /// Reads the token.
    ///
    /// # Errors
    ///
    /// Exit 3: there is none, it can't be read, others may read it, or it is malformed. The message names the file and
    /// what to do, never what is in it.
    pub(crate) fn read(&self) -> Result<Secret, Failure> {
        match self {
            Self::Given(secret) => checked(secret.expose(), "the token in the environment"),
            Self::File(path) => read_file(path, Privacy::Checked),
            Self::Credential(path) => read_file(path, Privacy::OfDirectory),
            Self::Missing { role } => Err(refused(format_args!(
                "the {role} has no token; put one into a file with mode 0600 and name it with --token-file, or set \
                 CONNLIB_TOKEN (`connlib portal token create` makes one)"
            ))),
        }
    }
}

fn from_environment(settings: &Settings<'_>) -> Option<(&'static str, Secret)> {
    let environment = settings.environment();

    VARIABLES
        .into_iter()
        .find_map(|variable| Some((variable, environment.secret(variable)?.clone())))
}

fn credential(settings: &Settings<'_>) -> Option<PathBuf> {
    let directory = settings.environment().value("CREDENTIALS_DIRECTORY")?;

    CREDENTIALS
        .into_iter()
        .map(|name| Path::new(directory).join(name))
        .find(|path| path.exists())
}

fn read_file(path: &Path, privacy: Privacy) -> Result<Secret, Failure> {
    let text = TOKEN_FILE.read(path, privacy)?;

    checked(text.expose(), &format!("the token file {}", path.display()))
}

/// Takes a text as a token if it can be one: a word of printable characters.
fn checked(text: &str, place: &str) -> Result<Secret, Failure> {
    let token = text.trim();
    if token.is_empty() {
        return Err(refused(format_args!(
            "{place} is empty; write the token into it (`connlib portal token create` makes one)"
        )));
    }
    let is_word = token.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_word || token.len() as u64 > MAX_LEN {
        return Err(refused(format_args!(
            "{place} is malformed: a token is one word; write it anew"
        )));
    }

    Ok(Secret::from(token))
}

fn refused(message: std::fmt::Arguments<'_>) -> Failure {
    Failure::new(Exit::NotAuthorised, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn file_with(contents: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();

        (directory, path)
    }

    fn find(role: Role, environment: &Environment, flag: Option<&str>) -> TokenSource {
        let mut settings = Settings::open(role, None, environment).unwrap();
        TokenSource::find(&mut settings, role, flag).unwrap()
    }

    #[test]
    fn a_private_file_is_read_and_trimmed() {
        for mode in [0o600, 0o400] {
            let (_directory, path) = file_with(b" abc.def\n", mode);

            let token = TokenSource::File(path).read().unwrap();
            assert_eq!(token.expose(), "abc.def");
        }
    }

    #[test]
    fn a_file_that_is_no_private_token_is_refused_by_name() {
        let long = "x".repeat(70_000);
        for (contents, mode, expected) in [
            (&b"hush"[..], 0o640, "chmod 600"),
            (b"hush", 0o604, "mode 0604"),
            (b"hush", 0o700, "chmod 600"),
            (b"\n", 0o600, "is empty"),
            (b"hush hush", 0o600, "malformed"),
            (b"hush\xff", 0o600, "UTF-8"),
            (long.as_bytes(), 0o600, "malformed"),
        ] {
            let (_directory, path) = file_with(contents, mode);
            let name = path.display().to_string();

            let failure = TokenSource::File(path).read().unwrap_err();
            let text = failure.to_string();
            assert_eq!(failure.exit, Exit::NotAuthorised);
            assert!(text.contains(&name) && text.contains(expected), "{text}");
            assert!(!text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn a_missing_file_and_a_directory_are_refused_by_name() {
        for path in ["/nonexistent/token", "/proc"] {
            let failure = TokenSource::File(path.into()).read().unwrap_err();

            assert_eq!(failure.exit, Exit::NotAuthorised);
            assert!(failure.to_string().contains(path), "{failure}");
        }
    }

    #[test]
    fn a_credential_may_be_readable_by_its_group() {
        let (directory, path) = file_with(b"abc", 0o440);
        let place = directory.path().to_str().unwrap();
        let environment = Environment::of(&[("CREDENTIALS_DIRECTORY", place)], &[]);

        let source = find(Role::Gateway, &environment, None);
        assert!(matches!(&source, TokenSource::Credential(found) if *found == path));
        assert_eq!(source.read().unwrap().expose(), "abc");
    }

    #[test]
    fn the_flag_wins_over_the_environment_and_ours_over_firezones() {
        let environment = Environment::of(
            &[("FIREZONE_TOKEN_PATH", "/theirs")],
            &[("CONNLIB_TOKEN", "ours"), ("FIREZONE_TOKEN", "theirs")],
        );

        let flag = find(Role::Client, &environment, Some("/flag"));
        assert!(matches!(flag, TokenSource::File(path) if path == Path::new("/flag")));
        let given = find(Role::Client, &environment, None).read().unwrap();
        assert_eq!(given.expose(), "ours");
        let file = Environment::of(&[("FIREZONE_TOKEN_PATH", "/theirs")], &[]);
        let file = find(Role::Client, &file, None);
        assert!(matches!(file, TokenSource::File(path) if path == Path::new("/theirs")));
    }

    #[test]
    fn without_any_token_the_ways_to_give_one_are_told() {
        let missing = find(Role::Gateway, &Environment::default(), None);

        let failure = missing.read().unwrap_err();
        assert_eq!(failure.exit, Exit::NotAuthorised);
        assert!(failure.to_string().contains("--token-file"), "{failure}");
    }
}
