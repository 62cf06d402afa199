//! The first packets through a tunnel.

use std::time::Duration;

use connlib_os::clock::Clock;
use tokio::task::spawn_blocking;

use super::broken;
use super::network::DirectPath;
use super::ping::{Pinger, Reply};
use super::plan::{Place, RESOURCE};
use super::system::{PathKind, System};
use crate::exit::{Exit, Failure};

/// What the first packets have shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstContact {
    /// From the first packet to its reply.
    pub(crate) first_reply: Duration,
    /// From the first packet until the direct path carried data.
    pub(crate) direct_after: Option<Duration>,
}

/// How long the first reply may take.
const FIRST_REPLY_WITHIN: Duration = Duration::from_secs(10);

/// How long the direct path may take.
const DIRECT_WITHIN: Duration = Duration::from_secs(10);

/// A single echo is not waited for longer.
const ECHO_WITHIN: Duration = Duration::from_secs(1);

/// Between two looks at the path while it comes up.
const LOOK_EVERY: Duration = Duration::from_millis(5);

impl System<'_> {
    /// Sends the first packet, waits for its reply, and for the direct path if there can be one.
    ///
    /// # Errors
    ///
    /// There is no reply.
    pub(crate) async fn first_contact(&self, direct: DirectPath) -> Result<FirstContact, Failure> {
        self.narration.step(format_args!(
            "The client pings {RESOURCE}: no connection yet"
        ));
        let mut pinger = Pinger::open(self.network.namespace(Place::Client)?, RESOURCE)?;
        let clock = Clock::new();
        let started_at = clock.now();

        let mut reply = None;
        while reply.is_none() && clock.now() - started_at < FIRST_REPLY_WITHIN {
            (pinger, reply) = ping(pinger).await?;
        }
        let Some(reply) = reply else {
            return Err(Failure::new(
                Exit::Failed,
                format_args!(
                    "{RESOURCE} does not reply through the tunnel; see the logs with --verbose"
                ),
            ));
        };
        let first_reply = reply.came_at - started_at;
        self.narration.step(format_args!(
            "The first reply, after {:.0} ms",
            first_reply.as_secs_f64() * 1e3
        ));
        if direct == DirectPath::Forbidden {
            return Ok(FirstContact {
                first_reply,
                direct_after: None,
            });
        }

        // A reply to what was sent when the path was direct has certainly come by it.
        while clock.now() - started_at < DIRECT_WITHIN {
            if self.path()? != Some(PathKind::Direct) {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            let reply;
            (pinger, reply) = ping(pinger).await?;
            if let Some(reply) = reply {
                let direct_after = reply.came_at - started_at;
                self.narration.step(format_args!(
                    "The direct path carries data, after {:.0} ms",
                    direct_after.as_secs_f64() * 1e3
                ));
                return Ok(FirstContact {
                    first_reply,
                    direct_after: Some(direct_after),
                });
            }
        }

        self.narration.step("The direct path has not come up");
        Ok(FirstContact {
            first_reply,
            direct_after: None,
        })
    }
}

/// Pings once on a thread that may block.
///
/// # Errors
///
/// The socket failed.
pub(crate) async fn ping(mut pinger: Pinger) -> Result<(Pinger, Option<Reply>), Failure> {
    let pinged = spawn_blocking(move || {
        let reply = pinger.ping(ECHO_WITHIN);
        (pinger, reply)
    });
    let (pinger, reply) = pinged.await.map_err(broken)?;

    match reply {
        Ok(reply) => Ok((pinger, reply)),
        Err(error) => Err(Failure::os(format_args!("ping {RESOURCE}"), &error)),
    }
}
