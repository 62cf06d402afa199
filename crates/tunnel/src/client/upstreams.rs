//! The name servers that the portal wants to be asked (client.md §1, §4.1).

use std::net::IpAddr;

use connlib_wire::portal::UpstreamDns;
use connlib_wire::portal::client::Interface;

use crate::dns::Server;

/// The ports of plain DNS and of DNS over TLS (RFC 1035 §4.2, RFC 7858 §3.1).
const PORT: u16 = 53;
const TLS_PORT: u16 = 853;

/// The servers of the first kind that the portal names any of.
pub(super) fn configured(interface: &Interface) -> Vec<Server> {
    let plain = |ip: IpAddr| Server::Plain((ip, PORT).into());
    let do53: Vec<_> = interface
        .upstream_do53
        .iter()
        .map(|it| plain(it.ip))
        .collect();
    let older: Vec<_> = interface
        .upstream_dns
        .iter()
        .map(|UpstreamDns::IpPort { address }| plain(address.ip()))
        .collect();
    let mut encrypted: Vec<_> = interface
        .upstream_dot
        .iter()
        .filter_map(|it| dot(&it.url))
        .collect();
    encrypted.extend(interface.upstream_doh.iter().filter_map(|it| doh(&it.url)));

    [do53, older, encrypted]
        .into_iter()
        .find(|servers| !servers.is_empty())
        .unwrap_or_default()
}

/// A server over HTTPS, if its URL is one that answers can come from (client.md §4.1).
fn doh(url: &str) -> Option<Server> {
    let rest = url.strip_prefix("https://")?;
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    let is_usable = !host.is_empty() && !rest.contains(['?', '#', ' ']);
    if !is_usable {
        tracing::debug!(url, "Not a server to ask over HTTPS");
    }

    is_usable.then(|| Server::Https(url.to_owned()))
}

/// A server over TLS: `tls://host[:port]`.
fn dot(url: &str) -> Option<Server> {
    let rest = url.strip_prefix("tls://")?;
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let port = port.map_or(Some(TLS_PORT), |port| port.parse().ok())?;
    let is_usable = !host.is_empty() && !host.contains(['/', '?', '#', ' ']);
    if !is_usable {
        tracing::debug!(url, "Not a server to ask over TLS");
    }

    is_usable.then(|| Server::Tls {
        host: host.to_owned(),
        port,
    })
}
