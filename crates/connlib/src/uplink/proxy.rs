//! Proxies that carry the connection to the portal: HTTP's CONNECT (RFC 9110 §9.3.6), plain or by TLS.

mod usual;

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use connlib_wire::secret::Secret;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use url::{Host, Url};

use super::http::Head;
use super::url::{Place, Security};

/// A proxy that connects others on request.
///
/// Its text is `http://[USER:PASSWORD@]HOST[:PORT]`, or `https://…` to speak TLS with it; without a scheme it is `http`, without a
/// port 80 or 443. What it is shown as has no credentials.
#[derive(Clone, Eq, PartialEq)]
pub struct Proxy {
    host: Host<String>,
    port: u16,
    security: Security,
    /// The value of a header.
    credentials: Option<Secret>,
}

/// Why an address can't be that of a proxy. None of the messages repeats it: it may hold a password.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// It is no URL.
    #[error("the proxy's address is no URL ({source}); write it like http://proxy.example:3128")]
    Invalid {
        /// What is wrong with it.
        source: url::ParseError,
    },
    /// It is that of a SOCKS proxy.
    #[error(
        "a proxy that speaks SOCKS can't be used; give one that takes CONNECT, like http://proxy.example:3128"
    )]
    Socks,
    /// It is a URL of another kind.
    #[error("the proxy's address begins with `{scheme}:`; use http: or https:")]
    Scheme {
        /// How it begins.
        scheme: String,
    },
    /// It names no host.
    #[error("the proxy's address names no host; write it like http://proxy.example:3128")]
    NoHost,
}

/// Why a proxy that was reached doesn't lead to the portal.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyFailure {
    /// It can't be trusted, or speaks no TLS.
    #[error("no TLS with it: {source}; check its certificate and the extra roots")]
    Tls {
        /// What is wrong.
        source: Arc<io::Error>,
    },
    /// It speaks something else, or ended the connection.
    #[error("no answer to CONNECT: {source}; check its address")]
    NoAnswer {
        /// What is wrong.
        source: Arc<io::Error>,
    },
    /// It wants to know who we are, or doesn't believe it.
    #[error("it wants other credentials (407); put user and password into its address")]
    Credentials,
    /// It doesn't connect us.
    #[error("it answered {status} to CONNECT; ask whoever runs it to let the portal through")]
    Status {
        /// The HTTP status.
        status: u16,
    },
}

impl Proxy {
    /// Which proxy the usual variables name for the portal at `api_url`: the variable, and what it says.
    ///
    /// For `wss:` and `https:` it is `https_proxy` or `HTTPS_PROXY`, for others `http_proxy` alone, since a web server lets its visitors
    /// set `HTTP_PROXY`; then `all_proxy` or `ALL_PROXY`. Lower case counts first. None is asked for a portal that `no_proxy` or
    /// `NO_PROXY` lists: hosts with all below them, addresses, networks, each perhaps with a port, or `*` for all.
    pub fn usual(
        api_url: &str,
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Option<(&'static str, Secret)> {
        usual::find(api_url, variable)
    }

    pub(super) fn place(&self) -> Place<'_> {
        let host = match &self.host {
            Host::Domain(name) => Host::Domain(name.as_str()),
            Host::Ipv4(ip) => Host::Ipv4(*ip),
            Host::Ipv6(ip) => Host::Ipv6(*ip),
        };

        Place {
            host,
            port: self.port,
        }
    }

    pub(super) fn security(&self) -> Security {
        self.security
    }

    /// Asks the proxy at the other end of a stream to lead it to a place. It resolves the name itself.
    pub(super) async fn connect(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        place: &Place<'_>,
    ) -> Result<(), ProxyFailure> {
        let request = self.request(place);
        let head = async {
            stream.write_all(request.expose().as_bytes()).await?;
            stream.flush().await?;

            Head::read(stream).await
        };
        let head = head.await.map_err(|source| ProxyFailure::NoAnswer {
            source: Arc::new(source),
        })?;

        match head.status {
            200..300 => Ok(()),
            407 => Err(ProxyFailure::Credentials),
            status => Err(ProxyFailure::Status { status }),
        }
    }

    fn request(&self, place: &Place<'_>) -> Secret {
        let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
        if let Some(credentials) = &self.credentials {
            request.extend(["Proxy-Authorization: ", credentials.expose(), "\r\n"]);
        }
        request.push_str("\r\n");

        Secret::from(request)
    }
}

impl FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let text = text.trim();
        let url = match text.contains("://") {
            true => Url::parse(text),
            false => Url::parse(&format!("http://{text}")),
        };
        let url = url.map_err(|source| match source == url::ParseError::EmptyHost {
            true => ProxyError::NoHost,
            false => ProxyError::Invalid { source },
        })?;
        let (security, default_port) = match url.scheme() {
            "http" => (Security::Plain, 80),
            "https" => (Security::Tls, 443),
            scheme if scheme.starts_with("socks") => return Err(ProxyError::Socks),
            scheme => {
                let scheme = scheme.into();
                return Err(ProxyError::Scheme { scheme });
            }
        };
        let is_anonymous = url.username().is_empty() && url.password().is_none();

        Ok(Self {
            host: url.host().ok_or(ProxyError::NoHost)?.to_owned(),
            port: url.port().unwrap_or(default_port),
            security,
            credentials: (!is_anonymous).then(|| credentials(&url)),
        })
    }
}

/// Basic credentials (RFC 7617) from the escaped ones of an address.
fn credentials(url: &Url) -> Secret {
    let mut pair = unescaped(url.username());
    pair.push(b':');
    pair.extend(unescaped(url.password().unwrap_or_default()));

    Secret::from(format!("Basic {}", STANDARD.encode(pair)))
}

/// A text without its percent signs (RFC 3986 §2.1); one that escapes nothing stands for itself.
fn unescaped(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut plain = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| byte == b'%');
        let escaped = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push(escaped.unwrap_or(byte));
        rest = match escaped {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }

    plain
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.security {
            Security::Plain => "http",
            Security::Tls => "https",
        };

        write!(f, "{scheme}://{}", self.place())
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_credentials() {
        for (text, shown) in [
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            ("http://proxy.example/", "http://proxy.example:80"),
            ("https://proxy.example", "https://proxy.example:443"),
            ("proxy.example:3128", "http://proxy.example:3128"),
            ("10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("http://[2001:db8::1]:8080", "http://[2001:db8::1]:8080"),
            (" http://u:hush@proxy.example:1 ", "http://proxy.example:1"),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert_eq!(format!("{proxy:?}"), format!("Proxy({shown})"));
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_repeating_a_password() {
        for (text, expected) in [
            ("socks5://u:hush@proxy:1080", "SOCKS"),
            ("socks5h://proxy", "SOCKS"),
            ("ftp://u:hush@proxy", "`ftp:`"),
            ("http://", "no host"),
            ("", "no host"),
            ("http://u:hush@proxy:99999", "no URL"),
            ("http://u:hush@pro xy", "no URL"),
        ] {
            let error = text.parse::<Proxy>().unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(told.contains(expected) && !told.contains("hush"), "{told}");
            assert!(error.to_string().contains("http:"), "{error}");
        }
    }

    #[test]
    fn credentials_are_unescaped_and_go_to_the_proxy_alone() {
        // RFC 7617 §2, with a password that an address has to escape.
        for (given, expected) in [
            ("Aladdin:open%20sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("Aladdin", "QWxhZGRpbjo="),
            ("a:100%", "YToxMDAl"),
        ] {
            let proxy: Proxy = format!("http://{given}@proxy:3128").parse().unwrap();
            let request = proxy.request(&place("portal.test", 443));
            assert_eq!(
                request.expose(),
                format!(
                    "CONNECT portal.test:443 HTTP/1.1\r\nHost: portal.test:443\r\n\
                     Proxy-Authorization: Basic {expected}\r\n\r\n"
                )
            );
        }
    }

    #[tokio::test]
    async fn only_a_success_leads_to_the_portal() {
        for (answer, expected) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", None),
            ("HTTP/1.0 299 Odd\r\nvia: x\r\n\r\n", None),
            ("HTTP/1.1 407 No\r\n\r\n", Some("user and password")),
            ("HTTP/1.1 403 Filtered\r\n\r\n", Some("403")),
            ("HTTP/1.1 302 Found\r\n\r\n", Some("302")),
            ("HTTP/1.1 101 Odd\r\n\r\n", Some("101")),
            ("SSH-2.0-OpenSSH\r\n\r\n", Some("HTTP/1")),
            ("", Some("no answer")),
        ] {
            let proxy: Proxy = "http://proxy:3128".parse().unwrap();
            let place = Place {
                host: Host::Ipv6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()),
                port: 443,
            };
            let (mut near, mut far) = tokio::io::duplex(4_096);
            far.write_all(answer.as_bytes()).await.unwrap();
            far.shutdown().await.unwrap();

            let result = proxy.connect(&mut near, &place).await;
            drop(near);
            let mut request = String::new();
            tokio::io::AsyncReadExt::read_to_string(&mut far, &mut request)
                .await
                .unwrap();
            assert!(request.starts_with("CONNECT [2001:db8::1]:443 HTTP/1.1\r\n"));
            match expected {
                None => result.unwrap(),
                Some(expected) => {
                    let error = result.unwrap_err().to_string();
                    assert!(error.contains(expected), "{error}");
                }
            }
        }
    }

    fn place(host: &str, port: u16) -> Place<'_> {
        Place {
            host: Host::Domain(host),
            port,
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_shows_a_password(text in "\\PC*", password in "[a-z]{12}") {
            let _ = text.parse::<Proxy>();
            let _ = unescaped(&text);
            let told = format!("{:?}", format!("http://u:{password}@{text}").parse::<Proxy>());
            prop_assume!(!text.contains(&password));
            prop_assert!(!told.contains(&password), "{told}");
        }
    }
}
