//! The socket that WireGuard programs take orders at (wireguard.com/xplatform).

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longer answers to orders are none.
const MAX_ANSWER: usize = 4096;

/// Gives orders, and waits until they are carried out.
///
/// # Errors
///
/// A sentence: the program refuses, or doesn't answer.
pub(super) async fn set(mut stream: UnixStream, orders: &str) -> Result<(), String> {
    let talk = async {
        stream.write_all(orders.as_bytes()).await?;
        let mut answer = Vec::new();
        let mut piece = [0; 256];
        while !answer.ends_with(b"\n\n") && answer.len() < MAX_ANSWER {
            let len = stream.read(&mut piece).await?;
            if len == 0 {
                break;
            }
            answer.extend_from_slice(piece.get(..len).unwrap_or_default());
        }
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(PATIENCE, talk)
        .await
        .map_err(|_| format!("it does not answer within {} s", PATIENCE.as_secs()))?
        .map_err(|error| error.to_string())?;

    match answer.trim() {
        "errno=0" => Ok(()),
        "" => Err("it hangs up".into()),
        other => Err(format!("it answers {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime;

    fn answered(answer: &'static str) -> Result<(), String> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (near, mut far) = UnixStream::pair().unwrap();
            let answering = tokio::spawn(async move {
                let mut orders = [0; 7];
                far.read_exact(&mut orders).await.unwrap();
                far.write_all(answer.as_bytes()).await.unwrap();
            });
            let result = set(near, "set=1\n\n").await;
            answering.await.unwrap();
            result
        })
    }

    #[test]
    fn an_errno_of_zero_is_a_yes() {
        assert_eq!(answered("errno=0\n\n"), Ok(()));
    }

    #[test]
    fn everything_else_is_a_no() {
        assert!(answered("errno=-22\n\n").unwrap_err().contains("-22"));
        assert!(answered("").unwrap_err().contains("hangs up"));
    }
}
