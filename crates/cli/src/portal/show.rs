//! `portal show` for people: small tables.

use std::fmt::Write as _;

use connlib_portal::admin::Show;

/// Everything the portal knows, as tables; those without rows are left out.
pub(super) fn table(show: &Show) -> String {
    let mut text = String::new();
    devices(&mut text, show);
    rules(&mut text, show);
    access(&mut text, show);

    if text.is_empty() {
        text.push_str("the portal knows nothing yet; `connlib portal apply` tells it\n");
    }
    text
}

/// What is connected, or was.
fn devices(text: &mut String, show: &Show) {
    let state = |is_online: bool| String::from(if is_online { "online" } else { "offline" });

    let gateways = show.gateways.iter().map(|gateway| {
        [
            gateway.name.clone(),
            gateway.site.clone(),
            state(gateway.online),
            gateway.ipv4.to_string(),
            gateway.version.clone().unwrap_or_default(),
        ]
    });
    let heads = ["GATEWAY", "SITE", "STATE", "ADDRESS", "VERSION"];
    section(text, heads, gateways);
    let relays = show.relays.iter().map(|relay| {
        let addresses: Vec<_> = relay.addresses.iter().map(ToString::to_string).collect();
        [relay.id.to_string(), addresses.join(", ")]
    });
    section(text, ["RELAY", "ADDRESSES"], relays);
    let clients = show.clients.iter().map(|client| {
        [
            client.name.clone(),
            client.actor.clone(),
            state(client.online),
            client.ipv4.to_string(),
            client.version.clone().unwrap_or_default(),
        ]
    });
    let heads = ["CLIENT", "ACTOR", "STATE", "ADDRESS", "VERSION"];
    section(text, heads, clients);
}

/// What the topology file says.
fn rules(text: &mut String, show: &Show) {
    let sites = show.sites.iter().map(|site| [site.name.clone()]);
    section(text, ["SITE"], sites);
    let actors = show.actors.iter();
    let actors = actors.map(|actor| [actor.name.clone(), actor.groups.join(", ")]);
    section(text, ["ACTOR", "GROUPS"], actors);
    let resources = show.resources.iter().map(|resource| {
        let filters = match resource.filters.is_empty() {
            true => "everything".into(),
            false => resource.filters.join(", "),
        };
        [
            resource.name.clone(),
            resource.address.clone(),
            resource.sites.join(", "),
            filters,
        ]
    });
    section(text, ["RESOURCE", "ADDRESS", "SITES", "FILTERS"], resources);
    let policies = show.policies.iter();
    let policies = policies.map(|policy| [policy.group.clone(), policy.resource.clone()]);
    section(text, ["POLICY FOR", "RESOURCE"], policies);
}

/// Who has a key, and who uses it.
fn access(text: &mut String, show: &Show) {
    let tokens = show.tokens.iter().map(|token| {
        let state = match (token.usable, token.revoked_at) {
            (true, _) => "good",
            (false, Some(_)) => "revoked",
            (false, None) => "expired",
        };
        [
            token.id.to_string(),
            token.kind.clone(),
            token.owner.clone().unwrap_or_default(),
            state.into(),
        ]
    });
    section(text, ["TOKEN", "FOR", "OWNER", "STATE"], tokens);
    let grants = show.grants.iter().map(|grant| {
        [
            grant.client.clone(),
            grant.resource.clone(),
            grant.gateway.clone(),
        ]
    });
    section(text, ["GRANT TO", "RESOURCE", "GATEWAY"], grants);
}

fn section<const N: usize>(
    text: &mut String,
    heads: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let mut widths = heads.map(|head| head.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }

    if !text.is_empty() {
        text.push('\n');
    }
    let heads = heads.map(str::to_owned);
    for row in [heads].iter().chain(&rows) {
        let cells = row.iter().zip(widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        // Writing to a text can't fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connlib_portal::admin::ShownActor;

    #[test]
    fn tables_without_rows_are_left_out() {
        let mut show = Show::default();
        assert!(table(&show).contains("knows nothing yet"));

        show.actors.push(ShownActor {
            id: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
            name: "alice".into(),
            groups: vec!["staff".into(), "night shift".into()],
        });
        assert_eq!(table(&show), "ACTOR  GROUPS\nalice  staff, night shift\n");
    }
}
