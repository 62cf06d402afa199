//! A relay's control plane: the portal, health checks, and whoever holds the handle.

use connlib_os::clock::Clock;
use tokio::sync::mpsc;

use super::elsewhere::Elsewhere;
use super::health::Health;
use crate::data_plane::RelayHandle;
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
    pub(super) health: Option<Health>,
}

impl Plane {
    pub(super) async fn run(
        mut self,
        clock: Clock,
        connection: Option<Connection>,
        mut status: Option<StatusSocket>,
    ) -> Result<(), Error> {
        let mut is_joined = false;
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
            tokio::select! {
                event = next_event(&mut portal) => match event {
                    FromUplink::Joined(_) => {
                        tracing::info!("Joined the portal");
                        is_joined = true;
                        self.control.progress.set_ready();
                    }
                    FromUplink::Away => is_joined = false,
                    FromUplink::Failing(..) | FromUplink::Message(_) => {}
                    FromUplink::Failed(error) => break Err(error.into()),
                },
                request = self.control.requests.recv() => match request {
                    Some(Request::Stop) | None => break Ok(()),
                    Some(request) => self.handle(request, is_joined),
                },
                asked = StatusSocket::next(&mut status) => self.handle(asked, is_joined),
                () = Health::serve(&mut self.health, is_joined) => {}
                served = self.serving.next() => match served {
                    Served::Ended => break Ok(()),
                    Served::Turned { is_there } => {
                        is_joined &= is_there;
                        announce(is_there, &portal);
                    }
                },
            }
        };

        let ended = self.serving.end();

        result.and(ended)
    }

    fn handle(&self, request: Request, is_joined: bool) {
        match request {
            Request::Report(answer) => self.report(answer, is_joined),
            Request::Explain(_, answer) => answer.give(serde_json::json!({
                "error": "a relay decides nothing about packets; ask the client or the gateway"
            })),
            Request::Reset | Request::Internet(_) | Request::Stop => {}
        }
    }

    fn report(&self, answer: Answer, is_joined: bool) {
        answer.give(serde_json::json!({
            "role": "relay",
            "portal": if is_joined { "joined" } else { "away" },
            "resident_bytes": connlib_os::process::resident_bytes().ok(),
        }));
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
