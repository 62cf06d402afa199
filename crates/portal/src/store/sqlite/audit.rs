//! Rows of the audit.

use rusqlite::types::Type;
use rusqlite::{Connection, Row, Transaction, params};

use super::rows::{seconds, senseless, unix};
use crate::audit::{self, Entry, Filter, Who};

pub(super) fn append(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    let sql = "INSERT INTO audit (at, who, uid, what, subject, details) VALUES (?, ?, ?, ?, ?, ?)";
    let (who, uid) = match entry.who {
        Who::Admin { uid } => ("admin", Some(uid)),
        Who::Peer => ("peer", None),
        Who::Portal => ("portal", None),
    };
    let details = entry.details.to_string();
    transaction.execute(
        sql,
        params![
            seconds(entry.at),
            who,
            uid,
            entry.what,
            entry.subject,
            details
        ],
    )?;

    Ok(())
}

/// The newest rows that `filter` wants, the newest last.
pub(super) fn read(connection: &Connection, filter: Filter) -> rusqlite::Result<Vec<audit::Row>> {
    let sql = "SELECT sequence, at, who, uid, what, subject, details FROM audit
               WHERE at >= ? ORDER BY sequence DESC LIMIT ?";
    let since = seconds(filter.since.unwrap_or_default());
    // A negative limit is none.
    let limit = filter.limit.map_or(-1, i64::from);
    let mut rows: Vec<audit::Row> = connection
        .prepare(sql)?
        .query_map([since, limit], row)?
        .collect::<rusqlite::Result<_>>()?;
    rows.reverse();

    Ok(rows)
}

fn row(row: &Row<'_>) -> rusqlite::Result<audit::Row> {
    let who = match (row.get::<_, String>(2)?.as_str(), row.get(3)?) {
        ("admin", Some(uid)) => Who::Admin { uid },
        ("peer", None) => Who::Peer,
        ("portal", None) => Who::Portal,
        (_, _) => {
            return Err(rusqlite::Error::InvalidColumnType(
                2,
                "who".into(),
                Type::Text,
            ));
        }
    };
    let details: String = row.get(6)?;

    Ok(audit::Row {
        sequence: unix(row, 0)?,
        entry: Entry {
            at: unix(row, 1)?,
            who,
            what: row.get(4)?,
            subject: row.get(5)?,
            details: serde_json::from_str(&details).map_err(|error| senseless(6, error))?,
        },
    })
}
