//! A client in a few lines: `minimal_client wss://portal.example TOKEN_FILE`, as root.

use connlib::{Client, Secret};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(url), Some(token_file)) = (args.next(), args.next()) else {
        return Err("usage: minimal_client URL TOKEN_FILE".into());
    };
    let token = std::fs::read_to_string(token_file)?;

    let client = Client::builder()
        .api_url(url)
        .token(Secret::from(token.trim()))
        .start()?;
    client.wait_ready()?;

    Ok(client.wait()?)
}
