//! Between edits and rows.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use connlib_wire::id::{ResourceId, SiteId};
use connlib_wire::portal::TunnelAddresses;
use connlib_wire::portal::resource::IpStack;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Params, Row, Transaction, params};

use crate::model::{
    Account, Actor, Address, Client, Device, Directory, Edit, Gateway, Grant, GrantKey, Network,
    Policy, PskBase, Resource, Site, Token, TokenKind, filter_text, parse_filter,
};

pub(super) fn put_account_if_none(
    transaction: &Transaction<'_>,
    account: &Account,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO account VALUES (1, ?, ?, ?) ON CONFLICT DO NOTHING";
    let key = account.ingest_key.expose();
    transaction.execute(sql, params![account.id.to_string(), account.slug, key])?;

    Ok(())
}

pub(super) fn load(connection: &Connection) -> rusqlite::Result<Directory> {
    let account = connection.query_row("SELECT id, slug, ingest_key FROM account", [], |row| {
        Ok(Account {
            id: parsed(row, 0)?,
            slug: row.get(1)?,
            ingest_key: row.get::<_, String>(2)?.into(),
        })
    })?;
    let mut directory = Directory::new(account);

    directory.apply(&Edit::SetNetwork(load_network(connection)?));
    // What is referred to comes before what refers.
    for edits in [
        all(connection, "SELECT id, name FROM sites", site)?,
        all(connection, "SELECT id, name FROM actors", |row| {
            actor(connection, row)
        })?,
        all(
            connection,
            "SELECT id, name, address, ip_stack FROM resources",
            |row| resource(connection, row),
        )?,
        all(
            connection,
            "SELECT id, group_name, resource_id, conditions FROM policies",
            policy,
        )?,
        all(
            connection,
            "SELECT id, actor_id, site_id, hash, salt, created_at, expires_at, revoked_at FROM tokens",
            token,
        )?,
        all(
            connection,
            "SELECT id, actor_id, external_id, name, ipv4, ipv6, psk_base, verified FROM clients",
            client,
        )?,
        all(
            connection,
            "SELECT id, site_id, external_id, name, ipv4, ipv6, psk_base FROM gateways",
            gateway,
        )?,
        all(
            connection,
            "SELECT client_id, resource_id, gateway_id, id, policy_id, token_id, created_at, expires_at, remote_ip FROM grants",
            grant,
        )?,
    ] {
        for edit in edits {
            directory.apply(&edit);
        }
    }

    Ok(directory)
}

/// Makes one edit. What follows from it is made by the references of the tables.
pub(super) fn write(transaction: &Transaction<'_>, edit: &Edit) -> rusqlite::Result<()> {
    let drop = |sql: &str, id: &dyn Display| execute(transaction, sql, [id.to_string()]);

    match edit {
        Edit::SetNetwork(network) => set_network(transaction, network),
        Edit::PutSite(site) => execute(
            transaction,
            "INSERT INTO sites VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            params![site.id.to_string(), site.name],
        ),
        Edit::DropSite(id) => drop("DELETE FROM sites WHERE id = ?", id),
        Edit::PutActor(actor) => put_actor(transaction, actor),
        Edit::DropActor(id) => drop("DELETE FROM actors WHERE id = ?", id),
        Edit::PutResource(resource) => put_resource(transaction, resource),
        Edit::DropResource(id) => drop("DELETE FROM resources WHERE id = ?", id),
        Edit::PutPolicy(policy) => put_policy(transaction, policy),
        Edit::DropPolicy(id) => drop("DELETE FROM policies WHERE id = ?", id),
        Edit::PutToken(token) => put_token(transaction, token),
        Edit::PutClient(client) => put_client(transaction, client),
        Edit::PutGateway(Gateway { id, site, device }) => put_device(
            transaction,
            "INSERT INTO gateways (id, site_id, external_id, name, ipv4, ipv6, psk_base) VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            id,
            site,
            device,
        ),
        Edit::PutGrant(grant) => put_grant(transaction, grant),
        Edit::DropGrant(key) => execute(
            transaction,
            "DELETE FROM grants WHERE client_id = ? AND resource_id = ? AND gateway_id = ?",
            params![
                key.client.to_string(),
                key.resource.to_string(),
                key.gateway.to_string()
            ],
        ),
    }
}

fn set_network(transaction: &Transaction<'_>, network: &Network) -> rusqlite::Result<()> {
    execute(
        transaction,
        "INSERT INTO network VALUES (1, ?)
         ON CONFLICT (one) DO UPDATE SET search_domain = excluded.search_domain",
        params![network.search_domain],
    )?;
    execute(transaction, "DELETE FROM resolvers", [])?;
    let put = |kind: &str, position: usize, server: &str| {
        execute(
            transaction,
            "INSERT INTO resolvers VALUES (?, ?, ?)",
            params![kind, position as i64, server],
        )
    };
    for (position, server) in network.do53.iter().enumerate() {
        put("do53", position, &server.to_string())?;
    }
    for (position, server) in network.doh.iter().enumerate() {
        put("doh", position, server)?;
    }
    for (position, server) in network.dot.iter().enumerate() {
        put("dot", position, server)?;
    }

    Ok(())
}

fn put_actor(transaction: &Transaction<'_>, actor: &Actor) -> rusqlite::Result<()> {
    let id = actor.id.to_string();
    execute(
        transaction,
        "INSERT INTO actors VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name",
        params![id, actor.name],
    )?;
    execute(
        transaction,
        "DELETE FROM actor_groups WHERE actor_id = ?",
        [&id],
    )?;
    for group in &actor.groups {
        execute(
            transaction,
            "INSERT INTO actor_groups VALUES (?, ?)",
            params![id, group],
        )?;
    }

    Ok(())
}

fn put_resource(transaction: &Transaction<'_>, resource: &Resource) -> rusqlite::Result<()> {
    let id = resource.id.to_string();
    let ip_stack = match &resource.address {
        Address::Dns { ip_stack, .. } => Some(ip_stack_text(*ip_stack)),
        Address::Cidr(_) | Address::Internet => None,
    };
    execute(
        transaction,
        "INSERT INTO resources VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE
         SET name = excluded.name, address = excluded.address, ip_stack = excluded.ip_stack",
        params![id, resource.name, resource.address.to_string(), ip_stack],
    )?;
    execute(
        transaction,
        "DELETE FROM resource_sites WHERE resource_id = ?",
        [&id],
    )?;
    for (position, site) in resource.sites.iter().enumerate() {
        execute(
            transaction,
            "INSERT INTO resource_sites VALUES (?, ?, ?)",
            params![id, position as i64, site.to_string()],
        )?;
    }
    execute(
        transaction,
        "DELETE FROM resource_filters WHERE resource_id = ?",
        [&id],
    )?;
    for (position, filter) in resource.filters.iter().enumerate() {
        execute(
            transaction,
            "INSERT INTO resource_filters VALUES (?, ?, ?)",
            params![id, position as i64, filter_text(filter)],
        )?;
    }

    Ok(())
}

fn put_policy(transaction: &Transaction<'_>, policy: &Policy) -> rusqlite::Result<()> {
    let conditions = serde_json::to_string(&policy.conditions)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;

    execute(
        transaction,
        "INSERT INTO policies (id, group_name, resource_id, conditions) VALUES (?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET group_name = excluded.group_name, resource_id = excluded.resource_id,
             conditions = excluded.conditions",
        params![
            policy.id.to_string(),
            policy.group,
            policy.resource.to_string(),
            conditions
        ],
    )
}

fn put_client(transaction: &Transaction<'_>, client: &Client) -> rusqlite::Result<()> {
    put_device(
        transaction,
        "INSERT INTO clients (id, actor_id, external_id, name, ipv4, ipv6, psk_base) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name",
        &client.id,
        &client.actor,
        &client.device,
    )?;

    execute(
        transaction,
        "UPDATE clients SET verified = ? WHERE id = ?",
        params![client.verified, client.id.to_string()],
    )
}

fn put_token(transaction: &Transaction<'_>, token: &Token) -> rusqlite::Result<()> {
    let (actor, site) = match token.kind {
        TokenKind::Client(actor) => (Some(actor.to_string()), None),
        TokenKind::Gateway(site) => (None, Some(site.to_string())),
        TokenKind::Relay => (None, None),
    };

    execute(
        transaction,
        "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE
         SET actor_id = excluded.actor_id, site_id = excluded.site_id, hash = excluded.hash, salt = excluded.salt,
             created_at = excluded.created_at, expires_at = excluded.expires_at, revoked_at = excluded.revoked_at",
        params![
            token.id.to_string(),
            actor,
            site,
            token.hash,
            token.salt,
            seconds(token.created_at),
            token.expires_at.map(seconds),
            token.revoked_at.map(seconds),
        ],
    )
}

fn put_device(
    transaction: &Transaction<'_>,
    sql: &str,
    id: &dyn Display,
    owner: &dyn Display,
    device: &Device,
) -> rusqlite::Result<()> {
    execute(
        transaction,
        sql,
        params![
            id.to_string(),
            owner.to_string(),
            device.external_id,
            device.name,
            device.addresses.ipv4.to_string(),
            device.addresses.ipv6.to_string(),
            device.psk_base.expose(),
        ],
    )
}

fn put_grant(transaction: &Transaction<'_>, grant: &Grant) -> rusqlite::Result<()> {
    execute(
        transaction,
        "INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (client_id, resource_id, gateway_id) DO UPDATE
         SET id = excluded.id, policy_id = excluded.policy_id, token_id = excluded.token_id,
             created_at = excluded.created_at, expires_at = excluded.expires_at, remote_ip = excluded.remote_ip",
        params![
            grant.key.client.to_string(),
            grant.key.resource.to_string(),
            grant.key.gateway.to_string(),
            grant.id.to_string(),
            grant.policy.to_string(),
            grant.token.to_string(),
            seconds(grant.created_at),
            grant.expires_at.map(seconds),
            grant.remote_ip.map(|address| address.to_string()),
        ],
    )
}

fn load_network(connection: &Connection) -> rusqlite::Result<Network> {
    let sql = "SELECT search_domain FROM network";
    let search_domain = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    let resolvers = "SELECT server FROM resolvers WHERE kind = ? ORDER BY position";

    Ok(Network {
        do53: rows(connection, resolvers, ["do53"], |row| parsed(row, 0))?,
        doh: rows(connection, resolvers, ["doh"], |row| row.get(0))?,
        dot: rows(connection, resolvers, ["dot"], |row| row.get(0))?,
        search_domain: search_domain.flatten(),
    })
}

fn site(row: &Row<'_>) -> rusqlite::Result<Edit> {
    Ok(Edit::PutSite(Site {
        id: parsed(row, 0)?,
        name: row.get(1)?,
    }))
}

fn actor(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<Edit> {
    let sql = "SELECT name FROM actor_groups WHERE actor_id = ?";
    let groups = rows(connection, sql, [row.get::<_, String>(0)?], |row| {
        row.get(0)
    })?;

    Ok(Edit::PutActor(Actor {
        id: parsed(row, 0)?,
        name: row.get(1)?,
        groups: BTreeSet::from_iter(groups),
    }))
}

fn resource(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<Edit> {
    let text: String = row.get(0)?;
    let id: ResourceId = parsed(row, 0)?;
    let sites = "SELECT site_id FROM resource_sites WHERE resource_id = ? ORDER BY position";
    let sites = rows(connection, sites, [&text], |row| parsed::<SiteId>(row, 0))?;
    let filters = "SELECT filter FROM resource_filters WHERE resource_id = ? ORDER BY position";
    let filters = rows(connection, filters, [&text], |row| {
        let filter: String = row.get(0)?;
        parse_filter(&filter).map_err(|error| senseless(0, error))
    })?;
    let address = match (parsed(row, 2)?, row.get::<_, Option<String>>(3)?) {
        (Address::Dns { pattern, .. }, Some(ip_stack)) => Address::Dns {
            pattern,
            ip_stack: parse_ip_stack(&ip_stack),
        },
        (address, _) => address,
    };

    Ok(Edit::PutResource(Resource {
        id,
        name: row.get(1)?,
        address,
        sites,
        filters,
    }))
}

fn policy(row: &Row<'_>) -> rusqlite::Result<Edit> {
    Ok(Edit::PutPolicy(Policy {
        id: parsed(row, 0)?,
        group: row.get(1)?,
        resource: parsed(row, 2)?,
        conditions: serde_json::from_str(&row.get::<_, String>(3)?)
            .map_err(|error| senseless(3, error))?,
    }))
}

fn token(row: &Row<'_>) -> rusqlite::Result<Edit> {
    let actor = row.get::<_, Option<String>>(1)?;
    let site = row.get::<_, Option<String>>(2)?;
    let kind = match (actor, site) {
        (Some(_), _) => TokenKind::Client(parsed(row, 1)?),
        (None, Some(_)) => TokenKind::Gateway(parsed(row, 2)?),
        (None, None) => TokenKind::Relay,
    };

    Ok(Edit::PutToken(Token {
        id: parsed(row, 0)?,
        kind,
        hash: row.get(3)?,
        salt: row.get(4)?,
        created_at: unix(row, 5)?,
        expires_at: optional_unix(row, 6)?,
        revoked_at: optional_unix(row, 7)?,
    }))
}

fn client(row: &Row<'_>) -> rusqlite::Result<Edit> {
    Ok(Edit::PutClient(Client {
        id: parsed(row, 0)?,
        actor: parsed(row, 1)?,
        verified: row.get(7)?,
        device: device(row)?,
    }))
}

fn gateway(row: &Row<'_>) -> rusqlite::Result<Edit> {
    Ok(Edit::PutGateway(Gateway {
        id: parsed(row, 0)?,
        site: parsed(row, 1)?,
        device: device(row)?,
    }))
}

fn device(row: &Row<'_>) -> rusqlite::Result<Device> {
    Ok(Device {
        external_id: row.get(2)?,
        name: row.get(3)?,
        addresses: TunnelAddresses {
            ipv4: parsed(row, 4)?,
            ipv6: parsed(row, 5)?,
        },
        psk_base: PskBase::new(row.get(6)?),
    })
}

fn grant(row: &Row<'_>) -> rusqlite::Result<Edit> {
    Ok(Edit::PutGrant(Grant {
        key: GrantKey {
            client: parsed(row, 0)?,
            resource: parsed(row, 1)?,
            gateway: parsed(row, 2)?,
        },
        id: parsed(row, 3)?,
        policy: parsed(row, 4)?,
        token: parsed(row, 5)?,
        created_at: unix(row, 6)?,
        expires_at: optional_unix(row, 7)?,
        remote_ip: match row.get::<_, Option<String>>(8)? {
            Some(_) => Some(parsed(row, 8)?),
            None => None,
        },
    }))
}

fn all(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<Edit>,
) -> rusqlite::Result<Vec<Edit>> {
    rows(connection, sql, [], read)
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(sql)?.query_map(params, read)?.collect()
}

fn execute(transaction: &Transaction<'_>, sql: &str, params: impl Params) -> rusqlite::Result<()> {
    transaction.execute(sql, params).map(drop)
}

/// A column that holds a text form.
fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;

    text.parse().map_err(|error| senseless(column, error))
}

pub(super) fn senseless(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

pub(super) fn unix(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let seconds: i64 = row.get(column)?;

    u64::try_from(seconds).map_err(|error| senseless(column, error))
}

fn optional_unix(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    match row.get::<_, Option<i64>>(column)? {
        Some(_) => unix(row, column).map(Some),
        None => Ok(None),
    }
}

/// SQLite's integers are signed; no token lives until then.
pub(super) fn seconds(unix: u64) -> i64 {
    i64::try_from(unix).unwrap_or(i64::MAX)
}

fn ip_stack_text(ip_stack: IpStack) -> &'static str {
    match ip_stack {
        IpStack::Dual => "dual",
        IpStack::Ipv4Only => "ipv4_only",
        IpStack::Ipv6Only => "ipv6_only",
    }
}

/// The table's check lets no other text in.
fn parse_ip_stack(text: &str) -> IpStack {
    match text {
        "ipv4_only" => IpStack::Ipv4Only,
        "ipv6_only" => IpStack::Ipv6Only,
        _ => IpStack::Dual,
    }
}
