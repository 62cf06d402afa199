//! `portal show` for people: small tables.

use std::fmt::Write as _;

use connlib_portal::admin::Show;

/// Everything the portal knows, as tables; those without rows are left out.
pub(super) fn table(show: &Show) -> String {
    let mut text = String::new();
    let online = |is_online: bool| if is_online { "online" } else { "offline" };

    section(
        &mut text,
        ["SITE"],
        show.sites.iter().map(|site| [site.name.clone()]),
    );
    section(
        &mut text,
        ["GATEWAY", "SITE", "STATE", "ADDRESS"],
        show.gateways.iter().map(|gateway| {
            [
                gateway.name.clone(),
                gateway.site.clone(),
                online(gateway.online).into(),
                gateway.ipv4.to_string(),
            ]
        }),
    );
    section(
        &mut text,
        ["RELAY", "ADDRESSES"],
        show.relays.iter().map(|relay| {
            let addresses: Vec<_> = relay.addresses.iter().map(ToString::to_string).collect();
            [relay.id.to_string(), addresses.join(", ")]
        }),
    );
    section(
        &mut text,
        ["CLIENT", "ACTOR", "STATE", "ADDRESS"],
        show.clients.iter().map(|client| {
            [
                client.name.clone(),
                client.actor.clone(),
                online(client.online).into(),
                client.ipv4.to_string(),
            ]
        }),
    );
    rules(&mut text, show);
    access(&mut text, show);

    if text.is_empty() {
        text.push_str("the portal knows nothing yet; `connlib portal apply` tells it\n");
    }
    text
}

/// Who may reach what.
fn rules(text: &mut String, show: &Show) {
    section(
        text,
        ["ACTOR", "GROUPS"],
        show.actors
            .iter()
            .map(|actor| [actor.name.clone(), actor.groups.join(", ")]),
    );
    section(
        text,
        ["RESOURCE", "ADDRESS", "SITES", "FILTERS"],
        show.resources.iter().map(|resource| {
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
        }),
    );
    section(
        text,
        ["POLICY", "RESOURCE"],
        show.policies
            .iter()
            .map(|policy| [policy.group.clone(), policy.resource.clone()]),
    );
}

/// Who has a key, and who uses it.
fn access(text: &mut String, show: &Show) {
    section(
        text,
        ["TOKEN", "FOR", "OWNER", "STATE"],
        show.tokens.iter().map(|token| {
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
        }),
    );
    section(
        text,
        ["GRANT TO", "RESOURCE", "GATEWAY"],
        show.grants.iter().map(|grant| {
            [
                grant.client.clone(),
                grant.resource.clone(),
                grant.gateway.clone(),
            ]
        }),
    );
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
