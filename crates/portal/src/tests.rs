//! What the tests of all modules start from.

use crate::model::Account;

pub(crate) fn account() -> Account {
    Account {
        id: "a0a0a0a0-0000-4000-8000-000000000001".parse().unwrap(),
        slug: "test".to_owned(),
        ingest_key: "portal-test-key".into(),
    }
}
