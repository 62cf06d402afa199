//! The machine's resolver settings, on a task of their own: what it would ask without us, and that it asks us.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use connlib_os::resolver::{HostResolver, Hosts, Method, Paths, ResolverError, Wanted};
use connlib_tunnel::dns::Resolvers;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::client::DnsControl;
use crate::error::Error;

/// How often to look whether the file of static names has changed.
const LOOK_AT_HOSTS: Duration = Duration::from_secs(5);

/// How long the last revert may take: systemd-resolved may be on its way down, too.
const REVERT_WITHIN: Duration = Duration::from_secs(6);

/// Where this machine keeps its names.
#[derive(Clone, Debug)]
pub(crate) struct HostNamesConfig {
    /// How programs are made to ask us.
    pub(crate) control: DnsControl,
    /// The file that stands for `/etc/resolv.conf`.
    pub(crate) resolv_conf: Option<PathBuf>,
}

/// The settings, from the outside of their task.
pub(super) struct HostNames {
    wanted: watch::Sender<Option<Wanted>>,
    heard: mpsc::Receiver<Heard>,
    task: JoinHandle<()>,
}

/// What the task has to say.
#[derive(Debug)]
pub(super) enum Heard {
    /// The machine would ask these without us, other ones than before.
    Resolvers(Resolvers),
    /// Programs ask what was [wanted](HostNames::want), as far as that could be done.
    Applied,
}

impl HostNames {
    /// Takes charge of the settings of the runtime's machine, and says what they are; nothing is changed in them before
    /// [`want`](Self::want).
    ///
    /// # Errors
    ///
    /// The method that is asked for doesn't work here.
    pub(super) async fn start(
        config: HostNamesConfig,
        interface: &str,
    ) -> Result<(Self, Option<Resolvers>), Error> {
        let mut paths = Paths::default();
        if let Some(resolv_conf) = config.resolv_conf {
            paths.resolv_conf = resolv_conf;
        }
        let method = match config.control {
            DnsControl::Auto => None,
            DnsControl::Resolved => Some(Method::Resolved),
            DnsControl::ResolvConf => Some(Method::ResolvConf),
            DnsControl::Off => Some(Method::Off),
        };
        let host = HostResolver::new(method, interface, paths).await?;
        tracing::debug!(method = %host.method(), "Resolver settings found");
        let (wanted, receive_wanted) = watch::channel(None);
        let (send_heard, heard) = mpsc::channel(2);
        let mut keeper = Keeper {
            host,
            hosts: Hosts::default(),
            hosts_changed_at: None,
            told: None,
            heard: send_heard,
        };

        keeper.look_at_hosts();
        let found = keeper.look().await;
        let names = Self {
            wanted,
            heard,
            task: tokio::spawn(keeper.run(receive_wanted)),
        };

        Ok((names, found))
    }

    /// The next thing that is to be known. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Heard {
        match self.heard.recv().await {
            Some(heard) => heard,
            // Never: the task ends when we do.
            None => std::future::pending().await,
        }
    }

    /// Has programs ask these addresses from now on, and complete names with that domain.
    pub(super) fn want(&self, wanted: Wanted) {
        self.wanted.send_replace(Some(wanted));
    }

    /// Puts everything back as it was.
    pub(super) async fn stop(self) {
        drop(self.wanted);
        drop(self.heard);
        if timeout(REVERT_WITHIN, self.task).await.is_err() {
            tracing::warn!("The resolver settings could not be restored in time; look at them");
        }
    }
}

struct Keeper {
    host: HostResolver,
    hosts: Hosts,
    hosts_changed_at: Option<SystemTime>,
    told: Option<Resolvers>,
    heard: mpsc::Sender<Heard>,
}

impl Keeper {
    async fn run(mut self, mut wanted: watch::Receiver<Option<Wanted>>) {
        let mut look = interval(LOOK_AT_HOSTS);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = self.host.changed() => {
                    if let Err(error) = changed {
                        tracing::info!(%error, "Changes of the resolver settings won't be noticed any more");
                        break;
                    }
                    self.tell().await;
                    let again = wanted.borrow().clone();
                    self.apply(again).await;
                }
                changed = wanted.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let new = wanted.borrow_and_update().clone();
                    self.apply(new).await;
                }
                _ = look.tick() => {
                    if self.look_at_hosts() {
                        self.tell().await;
                    }
                }
            }
        }
        // Changes of what is wanted are still heard when those of the system aren't any more.
        while wanted.changed().await.is_ok() {
            let new = wanted.borrow_and_update().clone();
            self.apply(new).await;
        }
        if let Err(error) = self.host.revert().await {
            tracing::warn!(%error, "The resolver settings could not be restored; the next start tries again");
        }
    }

    /// Says what the machine would ask, if that is new.
    async fn tell(&mut self) {
        if let Some(found) = self.look().await {
            // Nobody listens only while everything ends.
            let _ = self.heard.send(Heard::Resolvers(found)).await;
        }
    }

    /// What the machine would ask, if that is known and new.
    async fn look(&mut self) -> Option<Resolvers> {
        let system = match self.host.system().await {
            Ok(system) => system,
            Err(error) => {
                tracing::debug!(%error, "The system's name servers are not known");
                return None;
            }
        };
        let hosts = self.hosts.iter();
        let found = Resolvers {
            servers: system.servers,
            search: system.search,
            hosts: hosts
                .map(|(name, addresses)| (name.to_owned(), addresses.to_vec()))
                .collect(),
        };
        if self.told.as_ref() == Some(&found) {
            return None;
        }
        self.told = Some(found.clone());

        Some(found)
    }

    async fn apply(&mut self, wanted: Option<Wanted>) {
        let Some(mut wanted) = wanted else {
            return;
        };
        let mut applied = self.host.apply(&wanted).await;
        if let Err(error @ ResolverError::NotADomain { .. }) = &applied {
            tracing::info!(%error, "Names of one label won't be completed");
            wanted.search = None;
            applied = self.host.apply(&wanted).await;
        }
        match applied {
            Ok(()) => self.host.flush().await,
            Err(error) => tracing::warn!(%error, "Programs here don't ask us for names"),
        }
        let _ = self.heard.send(Heard::Applied).await;
    }

    /// Reads the static names again if they have changed.
    fn look_at_hosts(&mut self) -> bool {
        const HOSTS: &str = "/etc/hosts";
        let changed_at = std::fs::metadata(HOSTS).and_then(|it| it.modified()).ok();
        if changed_at == self.hosts_changed_at {
            return false;
        }
        self.hosts_changed_at = changed_at;
        match Hosts::read(HOSTS) {
            Ok(hosts) => self.hosts = hosts,
            Err(error) => tracing::debug!(%error, "The static names are not known"),
        }

        true
    }
}
