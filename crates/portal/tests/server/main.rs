//! The portal on a real network, the loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod admin;
mod conversations;
mod http;
mod peers;
mod sockets;
mod start;
mod strangers;

const FILE: &str = r#"
[[site]]
name = "hq"
[[actor]]
name = "alice"
groups = ["staff"]
[[actor]]
name = "bob"
groups = ["staff"]
[[resource]]
name = "lan"
address = "10.20.0.0/16"
sites = ["hq"]
[[policy]]
group = "staff"
resource = "lan"
"#;
