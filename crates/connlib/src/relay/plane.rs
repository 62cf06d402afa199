//! A relay's control plane: the portal, health checks, and whoever holds the handle.

use std::time::Duration;

use connlib_os::clock::Clock;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::elsewhere::Elsewhere;
use super::http::{Http, Vitals};
use crate::data_plane::{Counters, RelayHandle};
use crate::error::Error;
use crate::handle::{Answer, Control, Request};
use crate::status::StatusSocket;
use crate::uplink::{FromUplink, OfRelay, ToUplink, Uplink};

/// Who serves STUN and TURN.
pub(super) enum Serving {
    /// A thread of ours.
    Here(RelayHandle),
    /// Others.
    Elsewhere(Elsewhere),
}

/// What became of who serves.
enum Served {
    /// Our thread has ended.
    Ended,
    /// A server of others came or went.
    Turned { is_there: bool },
}

impl Serving {
    async fn next(&mut self) -> Served {
        match self {
            Self::Here(data) => {
                data.ended().await;
                Served::Ended
            }
            Self::Elsewhere(server) => Served::Turned {
                is_there: server.turned().await,
            },
        }
    }

    /// Lets our thread serve whom it serves, and nobody else; whether there is one.
    fn drain(&mut self) -> bool {
        match self {
            Self::Here(data) => data.drain(),
            Self::Elsewhere(_) => return false,
        }

        true
    }

    fn counters(&self) -> Option<Counters> {
        match self {
            Self::Here(data) => Some(data.counters()),
            Self::Elsewhere(_) => None,
        }
    }

    /// Ends our thread, and says why it had if nobody asked it to.
    fn end(self) -> Result<(), Error> {
        match self {
            Self::Here(data) => {
                data.stop();
                data.join().map_err(Error::from)
            }
            Self::Elsewhere(_) => Ok(()),
        }
    }
}

/// A connection to the portal that isn't begun yet.
pub(super) struct Connection {
    pub(super) uplink: Uplink<OfRelay>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) events: mpsc::Receiver<FromUplink<<OfRelay as crate::uplink::Protocol>::FromPortal>>,
}

/// The relay's control plane: the portal, health checks, and whoever holds the handle.
pub(super) struct Plane {
    pub(super) serving: Serving,
    pub(super) control: Control,
    pub(super) health: Option<Http>,
    pub(super) metrics: Option<Http>,
    /// How long those who have an allocation may keep it once the relay is to end.
    pub(super) drain: Duration,
}

/// How a relay stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    is_joined: bool,
    /// When it ends at the latest, once it is to.
    ends_at: Option<Instant>,
}

impl Plane {
    pub(super) async fn run(
        mut self,
        clock: Clock,
        connection: Option<Connection>,
        mut status: Option<StatusSocket>,
    ) -> Result<(), Error> {
        let mut standing = Standing {
            is_joined: false,
            ends_at: None,
        };
        let stands_alone = connection.is_none();
        let mut portal = match connection {
            Some(connection) => {
                tokio::spawn(connection.uplink.run(clock));
                match self.serving {
                    Serving::Here(_) => tell(&connection.commands, ToUplink::Connect(None)),
                    Serving::Elsewhere(_) => {
                        tracing::info!("Waiting for the TURN server to answer")
                    }
                }
                Some((connection.commands, connection.events))
            }
            None => {
                self.control.progress.set_ready();
                None
            }
        };

        let result = loop {
            let vitals = || Vitals {
                is_ready: (standing.is_joined || stands_alone) && standing.ends_at.is_none(),
                is_joined: standing.is_joined,
                counters: self.serving.counters(),
            };
            let (for_health, for_metrics) = (vitals(), vitals());
            tokio::select! {
                event = next_event(&mut portal) => match event {
                    FromUplink::Joined(_) => {
                        tracing::info!("Joined the portal");
                        standing.is_joined = true;
                        self.control.progress.set_ready();
                    }
                    FromUplink::Away => standing.is_joined = false,
                    FromUplink::Failing(..) | FromUplink::Message(_) => {}
                    // Who is about to end needs no portal.
                    FromUplink::Failed(_) if standing.ends_at.is_some() => portal = None,
                    FromUplink::Failed(error) => break Err(error.into()),
                },
                request = self.control.requests.recv() => match request {
                    Some(Request::Stop) | None => {
                        if !self.begins_to_drain(&mut standing, &portal) {
                            break Ok(());
                        }
                    }
                    Some(request) => self.handle(request, standing),
                },
                asked = StatusSocket::next(&mut status) => self.handle(asked, standing),
                () = Http::serve(&mut self.health, for_health) => {}
                () = Http::serve(&mut self.metrics, for_metrics) => {}
                () = end_of(standing) => {
                    tracing::info!("Ending though some still have allocations");
                    break Ok(());
                }
                served = self.serving.next() => match served {
                    Served::Ended => break Ok(()),
                    Served::Turned { is_there } => {
                        standing.is_joined &= is_there;
                        announce(is_there, &portal);
                    }
                },
            }
        };

        let ended = self.serving.end();

        result.and(ended)
    }

    /// Leaves the portal, so that nobody new comes, and waits for those who are here. Not the second time: who says twice
    /// that it is to end doesn't want to wait.
    fn begins_to_drain(&mut self, standing: &mut Standing, portal: &Option<Portal>) -> bool {
        if self.drain.is_zero() || standing.ends_at.is_some() || !self.serving.drain() {
            return false;
        }
        tracing::info!(
            "Draining: serving those who have an allocation for {} s at most",
            self.drain.as_secs()
        );
        if let Some((commands, _)) = portal {
            tell(commands, ToUplink::Disconnect);
        }
        standing.is_joined = false;
        standing.ends_at = Some(Instant::now() + self.drain);

        true
    }

    fn handle(&self, request: Request, standing: Standing) {
        match request {
            Request::Report(answer) => self.report(answer, standing),
            Request::Explain(_, answer) => answer.give(serde_json::json!({
                "error": "a relay decides nothing about packets; ask the client or the gateway"
            })),
            Request::Reset | Request::Internet(_) | Request::Stop => {}
        }
    }

    fn report(&self, answer: Answer, standing: Standing) {
        let counters = self.serving.counters();
        tokio::spawn(async move {
            let counts = match counters {
                Some(counters) => Some(counters.read().await),
                None => None,
            };
            let served = counts.map(|counts| {
                serde_json::json!({
                    "allocations": counts.server.allocations,
                    "channels": counts.server.channels,
                    "permissions": counts.server.permissions,
                    "relayed_bytes": counts.server.relayed_bytes(),
                })
            });
            answer.give(serde_json::json!({
                "role": "relay",
                "portal": if standing.is_joined { "joined" } else { "away" },
                "draining": standing.ends_at.is_some(),
                "served": served,
                "resident_bytes": connlib_os::process::resident_bytes().ok(),
            }));
        });
    }
}

/// Waits until a relay that is to end has waited for long enough.
async fn end_of(standing: Standing) {
    match standing.ends_at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

type Portal = (
    mpsc::Sender<Command>,
    mpsc::Receiver<FromUplink<<OfRelay as crate::uplink::Protocol>::FromPortal>>,
);

/// Lets the portal know of a server while it is there.
fn announce(is_there: bool, portal: &Option<Portal>) {
    let command = match is_there {
        true => {
            tracing::info!("The TURN server answers");
            ToUplink::Connect(None)
        }
        false => {
            tracing::warn!("The TURN server doesn't answer any more; the portal won't give it out");
            ToUplink::Disconnect
        }
    };
    if let Some((commands, _)) = portal {
        tell(commands, command);
    }
}

fn tell(commands: &mpsc::Sender<Command>, command: Command) {
    // It has ended, or is told so much that nothing is lost by it.
    if let Err(error) = commands.try_send(command) {
        tracing::debug!(%error, "The portal is not asked");
    }
}

type Command = ToUplink<<OfRelay as crate::uplink::Protocol>::ToPortal>;

/// What the portal's connection tells; for ever nothing without one.
async fn next_event(
    portal: &mut Option<Portal>,
) -> FromUplink<<OfRelay as crate::uplink::Protocol>::FromPortal> {
    let event = match portal {
        Some((_, events)) => events.recv().await,
        None => None,
    };
    match event {
        Some(event) => event,
        None => std::future::pending().await,
    }
}
