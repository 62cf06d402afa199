//! The names of all settings: flag and key are the same, and each has variables.

use std::fmt;

/// A role that has settings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Client,
    Gateway,
    Relay,
    Portal,
}

/// A setting: what it is called as a flag and as a key, and which variables set it, the first one first.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) name: &'static str,
    pub(crate) variables: &'static [&'static str],
}

/// A setting, by its name.
///
/// It is `const`, so that a table reads as a table.
const fn setting(name: &'static str, variables: &'static [&'static str]) -> Name {
    Name { name, variables }
}

/// What a client has (client.md §13 for Firezone's names).
const CLIENT: &[Name] = &[
    setting(name::API_URL, &["CONNLIB_API_URL", "FIREZONE_API_URL"]),
    setting(name::CA, &["CONNLIB_CA"]),
    setting(name::CLIENT_CERT, &["CONNLIB_CLIENT_CERT"]),
    setting(name::CLIENT_KEY, &["CONNLIB_CLIENT_KEY"]),
    setting(name::DNS, &["CONNLIB_DNS", "FIREZONE_DNS_CONTROL"]),
    setting(name::ID, &["CONNLIB_ID", "FIREZONE_ID"]),
    setting(
        name::INTERNET,
        &["CONNLIB_INTERNET", "FIREZONE_ACTIVATE_INTERNET_RESOURCE"],
    ),
    setting(
        name::MAX_PARTITION_TIME,
        &["CONNLIB_MAX_PARTITION_TIME", "MAX_PARTITION_TIME"],
    ),
    setting(
        name::MTLS_HOST,
        &["CONNLIB_MTLS_HOST", "FIREZONE_MTLS_HOST"],
    ),
    setting(name::NAME, &["CONNLIB_NAME", "FIREZONE_NAME"]),
    setting(name::PROXY, &["CONNLIB_PROXY"]),
    setting(name::READY_FD, &["CONNLIB_READY_FD"]),
    setting(name::RESOLV_CONF, &["CONNLIB_RESOLV_CONF"]),
    setting(name::SOCKET, &["CONNLIB_SOCKET"]),
    setting(
        name::TOKEN_FILE,
        &["CONNLIB_TOKEN_FILE", "FIREZONE_TOKEN_PATH"],
    ),
    setting(name::TUN, &["CONNLIB_TUN"]),
];

/// What a gateway has (gateway.md §14.1 for Firezone's names).
const GATEWAY: &[Name] = &[
    setting(name::API_URL, &["CONNLIB_API_URL", "FIREZONE_API_URL"]),
    setting(name::CA, &["CONNLIB_CA"]),
    setting(name::CLIENT_CERT, &["CONNLIB_CLIENT_CERT"]),
    setting(name::CLIENT_KEY, &["CONNLIB_CLIENT_KEY"]),
    setting(name::ID, &["CONNLIB_ID", "FIREZONE_ID"]),
    setting(name::MASQUERADE, &["CONNLIB_MASQUERADE"]),
    setting(
        name::MAX_PARTITION_TIME,
        &["CONNLIB_MAX_PARTITION_TIME", "FIREZONE_MAX_PARTITION_TIME"],
    ),
    setting(
        name::MTLS_HOST,
        &["CONNLIB_MTLS_HOST", "FIREZONE_MTLS_HOST"],
    ),
    setting(name::NAME, &["CONNLIB_NAME", "FIREZONE_NAME"]),
    setting(name::PROXY, &["CONNLIB_PROXY"]),
    setting(name::READY_FD, &["CONNLIB_READY_FD"]),
    setting(name::RESOLV_CONF, &["CONNLIB_RESOLV_CONF"]),
    setting(name::SOCKET, &["CONNLIB_SOCKET"]),
    setting(name::TOKEN_FILE, &["CONNLIB_TOKEN_FILE"]),
    setting(name::TUN, &["CONNLIB_TUN"]),
];

/// What a relay has (relay.md §17.1 for Firezone's names).
const RELAY: &[Name] = &[
    setting(
        name::ALLOW_LOOPBACK_PEERS,
        &["CONNLIB_ALLOW_LOOPBACK_PEERS"],
    ),
    setting(name::ANNOUNCE, &["CONNLIB_ANNOUNCE"]),
    setting(name::API_URL, &["CONNLIB_API_URL", "FIREZONE_API_URL"]),
    setting(name::CA, &["CONNLIB_CA"]),
    setting(name::CLIENT_CERT, &["CONNLIB_CLIENT_CERT"]),
    setting(name::CLIENT_KEY, &["CONNLIB_CLIENT_KEY"]),
    setting(name::DRAIN, &["CONNLIB_DRAIN"]),
    setting(name::HEALTH, &["CONNLIB_HEALTH", "HEALTH_CHECK_ADDR"]),
    setting(name::LISTEN_PORT, &["CONNLIB_LISTEN_PORT", "LISTEN_PORT"]),
    setting(name::MAX_ALLOCATIONS, &["CONNLIB_MAX_ALLOCATIONS"]),
    setting(
        name::MAX_ALLOCATIONS_PER_USER,
        &["CONNLIB_MAX_ALLOCATIONS_PER_USER"],
    ),
    setting(name::MAX_PARTITION_TIME, &["CONNLIB_MAX_PARTITION_TIME"]),
    setting(name::METRICS, &["CONNLIB_METRICS"]),
    setting(
        name::MTLS_HOST,
        &["CONNLIB_MTLS_HOST", "FIREZONE_MTLS_HOST"],
    ),
    setting(name::NAME, &["CONNLIB_NAME", "FIREZONE_NAME"]),
    // Firezone has two variables for it, which a relay joins itself.
    setting(name::PORT_RANGE, &["CONNLIB_PORT_RANGE"]),
    setting(name::PROXY, &["CONNLIB_PROXY"]),
    setting(name::PUBLIC_IP4, &["CONNLIB_PUBLIC_IP4", "PUBLIC_IP4_ADDR"]),
    setting(name::PUBLIC_IP6, &["CONNLIB_PUBLIC_IP6", "PUBLIC_IP6_ADDR"]),
    setting(name::READY_FD, &["CONNLIB_READY_FD"]),
    setting(
        name::REFUSE_PRIVATE_PEERS,
        &["CONNLIB_REFUSE_PRIVATE_PEERS"],
    ),
    setting(name::SECRET, &["CONNLIB_SECRET"]),
    setting(name::SOCKET, &["CONNLIB_SOCKET"]),
    setting(name::THREADS, &["CONNLIB_THREADS"]),
    setting(name::TOKEN_FILE, &["CONNLIB_TOKEN_FILE"]),
];

/// What a portal has.
const PORTAL: &[Name] = &[
    setting(name::ADMIN_SOCKET, &["CONNLIB_ADMIN_SOCKET"]),
    setting(name::COUNTRIES, &["CONNLIB_COUNTRIES"]),
    setting(name::DB, &["CONNLIB_DB"]),
    setting(name::INSECURE_PLAINTEXT, &["CONNLIB_INSECURE_PLAINTEXT"]),
    setting(name::LISTEN, &["CONNLIB_LISTEN"]),
    setting(name::READY_FD, &["CONNLIB_READY_FD"]),
    setting(name::TLS_CERT, &["CONNLIB_TLS_CERT"]),
    setting(name::TLS_KEY, &["CONNLIB_TLS_KEY"]),
    setting(name::TRUSTED_PROXIES, &["CONNLIB_TRUSTED_PROXIES"]),
];

/// The names themselves.
pub(crate) mod name {
    pub(crate) const ADMIN_SOCKET: &str = "admin-socket";
    pub(crate) const ALLOW_LOOPBACK_PEERS: &str = "allow-loopback-peers";
    pub(crate) const ANNOUNCE: &str = "announce";
    pub(crate) const API_URL: &str = "api-url";
    pub(crate) const CA: &str = "ca";
    pub(crate) const CLIENT_CERT: &str = "client-cert";
    pub(crate) const CLIENT_KEY: &str = "client-key";
    pub(crate) const COUNTRIES: &str = "countries";
    pub(crate) const DB: &str = "db";
    pub(crate) const DNS: &str = "dns";
    pub(crate) const DRAIN: &str = "drain";
    pub(crate) const HEALTH: &str = "health";
    pub(crate) const ID: &str = "id";
    pub(crate) const INTERNET: &str = "internet";
    pub(crate) const INSECURE_PLAINTEXT: &str = "insecure-plaintext";
    pub(crate) const LISTEN: &str = "listen";
    pub(crate) const LISTEN_PORT: &str = "listen-port";
    pub(crate) const MASQUERADE: &str = "masquerade";
    pub(crate) const MAX_ALLOCATIONS: &str = "max-allocations";
    pub(crate) const MAX_ALLOCATIONS_PER_USER: &str = "max-allocations-per-user";
    pub(crate) const MAX_PARTITION_TIME: &str = "max-partition-time";
    pub(crate) const METRICS: &str = "metrics";
    pub(crate) const MTLS_HOST: &str = "mtls-host";
    pub(crate) const NAME: &str = "name";
    pub(crate) const PORT_RANGE: &str = "port-range";
    pub(crate) const PROXY: &str = "proxy";
    pub(crate) const PUBLIC_IP4: &str = "public-ip4";
    pub(crate) const PUBLIC_IP6: &str = "public-ip6";
    pub(crate) const READY_FD: &str = "ready-fd";
    pub(crate) const REFUSE_PRIVATE_PEERS: &str = "refuse-private-peers";
    pub(crate) const RESOLV_CONF: &str = "resolv-conf";
    pub(crate) const SECRET: &str = "secret";
    pub(crate) const SOCKET: &str = "socket";
    pub(crate) const TLS_CERT: &str = "tls-cert";
    pub(crate) const TLS_KEY: &str = "tls-key";
    pub(crate) const TOKEN: &str = "token";
    pub(crate) const THREADS: &str = "threads";
    pub(crate) const TOKEN_FILE: &str = "token-file";
    pub(crate) const TRUSTED_PROXIES: &str = "trusted-proxies";
    pub(crate) const TUN: &str = "tun";
}

impl Role {
    /// All settings of the role, in the order of their names.
    pub(crate) fn names(self) -> &'static [Name] {
        match self {
            Self::Client => CLIENT,
            Self::Gateway => GATEWAY,
            Self::Relay => RELAY,
            Self::Portal => PORTAL,
        }
    }

    /// The settings that cli.md promises and a later version brings.
    pub(crate) fn later(self) -> &'static [&'static str] {
        match self {
            Self::Client => &["check", "metrics"],
            Self::Gateway => &["metrics"],
            Self::Relay | Self::Portal => &[],
        }
    }

    /// One of [`names`](Self::names); without variables if the role doesn't have it.
    pub(super) fn name(self, name: &'static str) -> &'static Name {
        const UNKNOWN: Name = setting("", &[]);

        self.names()
            .iter()
            .find(|spec| spec.name == name)
            .unwrap_or(&UNKNOWN)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Relay => "relay",
            Self::Portal => "portal",
        })
    }
}

/// The variable of ours for a setting.
pub(crate) fn own_variable(name: &str) -> String {
    format!("CONNLIB_{}", name.to_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_listed_once_and_has_a_variable_of_ours_first() {
        for role in [Role::Client, Role::Gateway, Role::Relay, Role::Portal] {
            let names: Vec<_> = role.names().iter().map(|spec| spec.name).collect();
            let mut sorted = names.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(names, sorted, "{role}");

            for spec in role.names() {
                assert_eq!(spec.variables[0], own_variable(spec.name));
                assert!(!role.later().contains(&spec.name));
            }
        }
    }
}
