//! `portal audit` for people: a line for each row.

use connlib_portal::audit::{Row, Who};
use connlib_portal::derive::ingest::iso_8601;
use serde_json::Map;

/// What happened, the newest last.
pub(super) fn text(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "nothing happened\n".into();
    }

    rows.iter().map(line).collect()
}

fn line(row: &Row) -> String {
    let entry = &row.entry;
    let who = match entry.who {
        Who::Admin { uid } => format!("uid {uid}"),
        Who::Peer => "a peer".to_owned(),
        Who::Portal => "the portal".to_owned(),
    };
    let is_empty = entry.details.as_object().is_some_and(Map::is_empty);
    let details = match is_empty {
        true => String::new(),
        false => format!("  {}", entry.details),
    };
    let (at, what, subject) = (iso_8601(entry.at), &entry.what, &entry.subject);

    format!("{at}  {who:<10}  {what} {subject}{details}\n")
}
