//! What the control plane is told of from below: the network changed, or the machine woke up.

use std::net::IpAddr;
use std::time::Duration;

use connlib_os::netlink::{Netlink, NetlinkError, Watch, WatchSettings};
use connlib_os::wake::Wakes;

use super::MARK;
use super::surroundings::{Change, Surroundings};

/// A machine that slept for longer has lost what others keep for it: bindings of routers, the portal's patience.
const LONG_SLEEP: Duration = Duration::from_secs(3);

/// Who listens. What can't be listened to stays silent: it is a loss of speed, not of function.
pub(super) struct Notices {
    surroundings: Option<Surroundings<Watch>>,
    wakes: Option<Wakes>,
}

/// Something that was heard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Notice {
    /// The network changed somehow; see [`Notices::judge`].
    Network,
    /// The machine slept.
    Woke(Sleep),
}

/// How long the machine slept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sleep {
    /// So shortly that only our timers are late.
    Short,
    /// So long that nothing of before can be relied on.
    Long,
}

impl Notices {
    /// Begins to listen; changes of our own interface `tun` don't count.
    pub(super) async fn start(tun: &str) -> Self {
        let surroundings = watch(tun)
            .await
            .inspect_err(|error| tracing::info!(%error, "Changes of the network won't be noticed"));
        let wakes =
            Wakes::new().inspect_err(|error| tracing::info!(%error, "Waking up won't be noticed"));

        Self {
            surroundings: surroundings.ok(),
            wakes: wakes.ok(),
        }
    }

    /// Waits for the next notice. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Notice {
        let network = async {
            match &mut self.surroundings {
                Some(surroundings) => surroundings.changed().await,
                None => std::future::pending().await,
            }
        };
        let wake = async {
            match &mut self.wakes {
                Some(wakes) => wakes.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = network => {
                if let Err(error) = changed {
                    self.give_up(&error);
                }
                Notice::Network
            }
            slept = wake => match slept {
                Ok(slept) if slept >= LONG_SLEEP => Notice::Woke(Sleep::Long),
                Ok(_) => Notice::Woke(Sleep::Short),
                Err(error) => {
                    tracing::info!(%error, "Waking up won't be noticed any more");
                    self.wakes = None;
                    Notice::Woke(Sleep::Short)
                }
            },
        }
    }

    /// Looks what a notice was about.
    pub(super) async fn judge(&mut self) -> Change {
        let Some(surroundings) = &mut self.surroundings else {
            return Change::Hint;
        };

        match surroundings.judge().await {
            Ok(change) => change,
            Err(error) => {
                self.give_up(&error);
                Change::Hint
            }
        }
    }

    /// Relays whose ways matter from now on, besides those of before unless they are all that there are.
    pub(super) async fn learn(&mut self, relays: Relays) {
        let Some(surroundings) = &mut self.surroundings else {
            return;
        };
        let relays = match relays {
            Relays::All(relays) => {
                surroundings.forget_relays();
                relays
            }
            Relays::More(relays) => relays,
        };
        if let Err(error) = surroundings.learn(relays).await {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &NetlinkError) {
        tracing::info!(%error, "Changes of the network won't be noticed any more");
        self.surroundings = None;
    }
}

/// Addresses of relays.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Relays {
    /// These are all.
    All(Vec<IpAddr>),
    /// These come to those that are known.
    More(Vec<IpAddr>),
}

async fn watch(tun: &str) -> Result<Surroundings<Watch>, NetlinkError> {
    let settings = WatchSettings {
        except: Some(Netlink::new()?.link_index(tun).await?),
        mark: Some(MARK),
    };

    Surroundings::new(Watch::new(settings)?).await
}
