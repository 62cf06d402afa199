//! The certificate that the portal may want to see beside a token, or instead of one.

use std::fs;
use std::path::PathBuf;

use connlib::Secret;

use crate::exit::{Exit, Failure};
use crate::private_file::{Privacy, PrivateFile};
use crate::settings::{Settings, name};

const KEY_FILE: PrivateFile = PrivateFile {
    what: "client certificate's key",
    flag: "--client-key",
};

/// Where it is, and where the portal asks for it.
#[derive(Debug)]
pub(crate) struct CertificateSource {
    chain: PathBuf,
    key: PathBuf,
    host: Option<String>,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Certificate {
    /// In PEM.
    pub(crate) chain: String,
    /// In PEM.
    pub(crate) key: Secret,
    /// The portal's host for those that show one.
    pub(crate) host: Option<String>,
}

impl CertificateSource {
    /// Finds out where the certificate is, if there is to be one.
    ///
    /// # Errors
    ///
    /// Exit 2: only one of certificate and key is given.
    pub(crate) fn find(
        settings: &mut Settings<'_>,
        chain: Option<&str>,
        key: Option<&str>,
        host: Option<&str>,
    ) -> Result<Option<Self>, Failure> {
        let chain = settings.optional(name::CLIENT_CERT, chain)?;
        let key = settings.optional(name::CLIENT_KEY, key)?;
        let host: Option<String> = settings.optional(name::MTLS_HOST, host)?;
        let host = host.filter(|host| !host.trim().is_empty());
        match (chain, key) {
            (Some(chain), Some(key)) => Ok(Some(Self { chain, key, host })),
            (None, None) => Ok(None),
            (Some(_), None) | (None, Some(_)) => Err(Failure::new(
                Exit::WrongUse,
                "a client certificate needs its key, and the key its certificate; give --client-cert and --client-key",
            )),
        }
    }

    /// Reads both.
    ///
    /// # Errors
    ///
    /// Exit 2: the certificate can't be read. Exit 3: the key can't, or others may read it.
    pub(crate) fn read(&self) -> Result<Certificate, Failure> {
        let chain = fs::read_to_string(&self.chain).map_err(|error| {
            Failure::new(
                Exit::WrongUse,
                format_args!(
                    "can't read the client certificate {}: {error}; name a PEM file with --client-cert",
                    self.chain.display()
                ),
            )
        })?;

        Ok(Certificate {
            chain,
            key: KEY_FILE.read(&self.key, Privacy::Checked)?,
            host: self.host.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::environment::Environment;
    use crate::settings::Role;

    fn find(set: &[(&str, &str)]) -> Result<Option<CertificateSource>, Failure> {
        let environment = Environment::of(set, &[]);
        let mut settings = Settings::open(Role::Gateway, None, &environment).unwrap();

        CertificateSource::find(&mut settings, None, None, None)
    }

    #[test]
    fn a_certificate_comes_with_its_key_and_perhaps_with_a_host() {
        const CERT: (&str, &str) = ("CONNLIB_CLIENT_CERT", "/c");
        const KEY: (&str, &str) = ("CONNLIB_CLIENT_KEY", "/k");

        assert!(find(&[]).unwrap().is_none());
        for half in [CERT, KEY] {
            let failure = find(&[half]).unwrap_err();
            assert_eq!(failure.exit, Exit::WrongUse);
            assert!(failure.to_string().contains("--client-key"), "{failure}");
        }
        for (host, expected) in [("m.example", Some("m.example")), (" ", None), ("", None)] {
            let found = find(&[CERT, KEY, ("FIREZONE_MTLS_HOST", host)]).unwrap();
            assert_eq!(found.unwrap().host.as_deref(), expected);
        }
    }

    #[test]
    fn a_key_is_as_private_as_a_token() {
        let directory = tempfile::tempdir().unwrap();
        let (chain, key) = (directory.path().join("c"), directory.path().join("k"));
        let source = CertificateSource {
            chain: chain.clone(),
            key: key.clone(),
            host: None,
        };
        let failure = source.read().unwrap_err();
        assert_eq!(failure.exit, Exit::WrongUse);
        assert!(failure.to_string().contains(chain.to_str().unwrap()));

        fs::write(&chain, "chain").unwrap();
        fs::write(&key, "hush").unwrap();
        for (mode, is_private) in [(0o644, false), (0o640, false), (0o600, true), (0o400, true)] {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            match source.read() {
                Ok(read) => {
                    assert!(is_private, "{mode:o}");
                    assert_eq!((read.chain.as_str(), read.key.expose()), ("chain", "hush"));
                }
                Err(failure) => {
                    let told = failure.to_string();
                    assert!(!is_private, "{told}");
                    assert_eq!(failure.exit, Exit::NotAuthorised);
                    assert!(
                        told.contains("chmod 600") && !told.contains("hush"),
                        "{told}"
                    );
                }
            }
        }
    }
}
