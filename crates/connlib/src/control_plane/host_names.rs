//! The machine's resolver settings, on a task of their own: what it would ask without us, and that it asks us.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use connlib_os::resolver::{HostResolver, Hosts, Method, Paths, ResolverError, Wanted};
use connlib_tunnel::dns::Resolvers;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::error::{Error, Failed};

/// How often to look whether the file of static names has changed.
const LOOK_AT_HOSTS: Duration = Duration::from_secs(5);

/// How often in a row what others have set is written over without a pause.
const AT_ONCE: u32 = 3;

/// The longest pause before what others have set is written over.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Once they have been left alone for that long, others may be written over at once again.
const CALM: Duration = Duration::from_secs(120);

/// How long the last revert may take: systemd-resolved may be on its way down, too.
const REVERT_WITHIN: Duration = Duration::from_secs(6);

/// How programs on this machine are made to ask the client for names.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum DnsControl {
    /// By systemd-resolved where `/etc/resolv.conf` leads to it and it answers, else by that file if it is a regular one that can
    /// be written, else not at all.
    Auto,
    /// By systemd-resolved.
    Resolved,
    /// By `/etc/resolv.conf`, which is restored at the end, or by the next run after a crash.
    ResolvConf,
    /// Not at all: whoever wants to may ask at the addresses that [`Client::status`](crate::Client::status) shows.
    #[default]
    Off,
}

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
        let interface = interface.to_owned();
        let (wanted, receive_wanted) = watch::channel(None);
        let (send_heard, heard) = mpsc::channel(2);
        let started = on_a_thread(async move {
            let host = HostResolver::new(method, &interface, paths).await?;
            tracing::debug!(method = %host.method(), "Resolver settings found");
            let mut keeper = Keeper {
                host,
                hosts: Hosts::default(),
                hosts_changed_at: None,
                told: None,
                heard: send_heard,
                is_refused: false,
                persistence: Persistence::default(),
            };
            keeper.look_at_hosts();
            let found = keeper.look().await;

            Ok::<_, Error>((keeper, found))
        });
        let (keeper, found) = started.await.map_err(|_| Failed::Crashed)??;
        let names = Self {
            wanted,
            heard,
            task: on_a_thread(keeper.run(receive_wanted)),
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

/// Runs a future on a thread of its own: it reads and writes files, which may have to wait for a disk.
fn on_a_thread<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let runtime = Handle::current();

    spawn_blocking(move || runtime.block_on(work))
}

struct Keeper {
    host: HostResolver,
    hosts: Hosts,
    hosts_changed_at: Option<SystemTime>,
    told: Option<Resolvers>,
    heard: mpsc::Sender<Heard>,
    /// Whether another client has charge of the settings.
    is_refused: bool,
    persistence: Persistence,
}

/// How eagerly what others have set is written over: two that write over each other at once do nothing else any more.
#[derive(Debug, Default)]
struct Persistence {
    in_a_row: u32,
    latest_at: Option<Instant>,
}

impl Persistence {
    /// How long to wait now that others have set something.
    fn pause(&mut self, now: Instant) -> Duration {
        let is_calm = |latest: Instant| now.saturating_duration_since(latest) >= CALM;
        if self.latest_at.replace(now).is_none_or(is_calm) {
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        let Some(doublings) = self.in_a_row.checked_sub(AT_ONCE + 1) else {
            return Duration::ZERO;
        };

        Duration::from_secs(1_u64.checked_shl(doublings).unwrap_or(u64::MAX)).min(MAX_PAUSE)
    }
}

impl Keeper {
    async fn run(mut self, mut wanted: watch::Receiver<Option<Wanted>>) {
        let mut look = interval(LOOK_AT_HOSTS);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // When to write over what others have set.
        let mut again_at = None;
        loop {
            let again = async {
                match again_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.host.changed() => {
                    if let Err(error) = changed {
                        tracing::info!(%error, "Changes of the resolver settings won't be noticed any more");
                        break;
                    }
                    self.tell().await;
                    if again_at.is_none() {
                        let now = Instant::now();
                        again_at = Some(now + self.persistence.pause(now));
                    }
                }
                () = again => {
                    again_at = None;
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
                    if self.is_refused {
                        let again = wanted.borrow().clone();
                        self.apply(again).await;
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
        let was_refused = std::mem::take(&mut self.is_refused);
        match applied {
            Ok(()) => self.host.flush().await,
            Err(error @ ResolverError::InUse { .. }) => {
                self.is_refused = true;
                if !was_refused {
                    tracing::warn!(%error, "Programs here don't ask us for names yet");
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_writes_over_us_again_and_again_is_written_over_less_and_less() {
        let mut persistence = Persistence::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let pause = persistence.pause(now);
            pauses.push(pause.as_secs());
            // They need no longer than a burst takes.
            now += pause + Duration::from_millis(100);
        }
        assert_eq!(pauses, [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);

        assert_eq!(persistence.pause(now + CALM), Duration::ZERO);
    }

    #[tokio::test]
    async fn who_comes_second_waits_for_the_end_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        let read = || std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, "nameserver 192.0.2.1\n").unwrap();
        let config = HostNamesConfig {
            control: DnsControl::ResolvConf,
            resolv_conf: Some(file.clone()),
        };
        let wanted = |server: &str| Wanted {
            servers: vec![server.parse().unwrap()],
            search: None,
        };
        let (mut first, _) = HostNames::start(config.clone(), "first").await.unwrap();
        first.want(wanted("100.100.111.1"));
        assert!(matches!(first.next().await, Heard::Applied));
        let (mut second, found) = HostNames::start(config, "second").await.unwrap();
        assert_eq!(found.unwrap().servers, ["192.0.2.1:53".parse().unwrap()]);
        second.want(wanted("100.100.111.2"));
        assert!(matches!(second.next().await, Heard::Applied));
        assert!(read().contains("100.100.111.1"));

        first.stop().await;
        tokio::time::pause();
        tokio::time::advance(LOOK_AT_HOSTS).await;
        tokio::time::resume();
        while !read().contains("100.100.111.2") {
            let heard = timeout(LOOK_AT_HOSTS * 4, second.next()).await;
            heard.expect("the second one goes on waiting");
        }
        second.stop().await;
        assert_eq!(read(), "nameserver 192.0.2.1\n");
    }
}
