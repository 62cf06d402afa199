//! Control over which resolvers this machine asks.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use tokio::runtime;

use super::Resolvers;
use super::error::ResolverError;
use super::file::ResolvConfFile;
use super::resolved::Resolved;
use super::watch::FileWatch;

/// Has this machine ask other resolvers for a while, and knows which ones it would ask otherwise.
///
/// One at a time sets a file: for a second one [`apply`](Self::apply) fails until the first one has reverted, was dropped or
/// was killed. What is set is taken back by [`revert`](Self::revert). Dropping this does that for `/etc/resolv.conf`;
/// systemd-resolved forgets what is set for a link when the link goes.
///
/// Files are read and written on the calling thread. They are small, but a backup waits for the disk.
#[derive(Debug)]
pub struct HostResolver {
    control: Control,
    watch: FileWatch,
    known: Observation,
}

/// How the resolvers of this machine are set.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Method {
    /// By systemd-resolved, for the names that no other link claims.
    Resolved,
    /// By the file `/etc/resolv.conf`. libc reads the first three resolvers in it, so no more are written.
    ResolvConf,
    /// Not at all.
    Off,
}

/// Which resolvers to ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// In this order; if there are none, everything is to be as it was.
    pub servers: Vec<IpAddr>,
    /// The domain to complete names without a dot with.
    pub search: Option<String>,
}

/// Where the system keeps its settings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Paths {
    /// The file that programs find their resolvers in; backups go beside it.
    pub resolv_conf: PathBuf,
    /// The directory in which systemd-resolved writes such files.
    pub resolved: PathBuf,
    /// systemd-resolved's tool; looked for in `PATH` if it is a plain name.
    pub resolvectl: PathBuf,
}

#[derive(Debug)]
enum Control {
    Resolved(Resolved),
    ResolvConf(ResolvConfFile),
    Off(PathBuf),
}

/// What [`HostResolver::changed`] compares.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Observation {
    /// `None`: it couldn't be read.
    system: Option<Resolvers>,
    /// Whether what was set is still there.
    is_intact: bool,
}

/// Where systemd-resolved listens for all programs of the machine (systemd-resolved.service(8)).
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

impl HostResolver {
    /// Takes charge; nothing changes yet, except that what a killed run has left behind is undone.
    ///
    /// Without a method it takes systemd-resolved, if that is what `/etc/resolv.conf` leads to and it answers; else
    /// `/etc/resolv.conf`, if that is a regular file that can be written; else none, and logs why.
    ///
    /// # Errors
    ///
    /// The method that is asked for doesn't work here. [`ResolverError::NoRuntime`] outside of a tokio runtime, which must
    /// have its I/O and time drivers enabled.
    pub async fn new(
        method: Option<Method>,
        interface: &str,
        paths: Paths,
    ) -> Result<Self, ResolverError> {
        runtime::Handle::try_current().map_err(|_| ResolverError::NoRuntime)?;
        match (Self::recover(&paths), method) {
            (Err(error), Some(Method::ResolvConf)) => return Err(error),
            (Err(error), _) => {
                tracing::warn!(%error, "What an earlier run may have left behind was not looked into");
            }
            (Ok(()), _) => {}
        }

        let resolved = Resolved::new(&paths.resolvectl, interface);
        let file = ResolvConfFile::new(&paths.resolv_conf);
        let control = match method {
            Some(Method::Resolved) => {
                resolved.check().await?;
                Control::Resolved(resolved)
            }
            Some(Method::ResolvConf) => {
                file.check()?;
                Control::ResolvConf(file)
            }
            Some(Method::Off) => Control::Off(paths.resolv_conf.clone()),
            None => choose(resolved, file, &paths).await,
        };
        let mut watched = vec![paths.resolv_conf];
        if let Control::Resolved(_) = control {
            // It changes with the settings of all links.
            watched.push(paths.resolved.join("resolv.conf"));
        }
        let watch = FileWatch::new(watched);
        let known = control.observe().await;

        Ok(Self {
            control,
            watch,
            known,
        })
    }

    /// Undoes what a killed run, of this program or of Firezone's, has left in `/etc/resolv.conf`. What a run of this program
    /// has set that hasn't ended stays. [`new`](Self::new) does it, too. The other methods leave nothing.
    ///
    /// # Errors
    ///
    /// The file, or the backup, can't be read or written.
    pub fn recover(paths: &Paths) -> Result<(), ResolverError> {
        ResolvConfFile::new(&paths.resolv_conf).recover()
    }

    /// How the resolvers are set.
    pub fn method(&self) -> Method {
        match self.control {
            Control::Resolved(_) => Method::Resolved,
            Control::ResolvConf(_) => Method::ResolvConf,
            Control::Off(_) => Method::Off,
        }
    }

    /// What the machine would ask without us.
    ///
    /// # Errors
    ///
    /// The file can't be read, or systemd-resolved doesn't say.
    pub async fn system(&mut self) -> Result<Resolvers, ResolverError> {
        let system = self.control.system().await;
        self.known.system = system.as_ref().ok().cloned();

        system
    }

    /// Has the machine ask these resolvers, and complete names with this domain alone. The second time nothing changes; if
    /// somebody else has set other ones in the meantime, those become what will be restored.
    ///
    /// # Errors
    ///
    /// The settings can't be written; what is left of them then is taken back by [`revert`](Self::revert).
    /// [`ResolverError::InUse`] while another one has set the file: there is no notice of its end, so try again.
    pub async fn apply(&mut self, wanted: &Wanted) -> Result<(), ResolverError> {
        if wanted.servers.is_empty() {
            return self.revert().await;
        }
        if let Some(domain) = &wanted.search
            && !is_domain(domain)
        {
            return Err(ResolverError::NotADomain {
                domain: domain.clone(),
            });
        }
        match &mut self.control {
            Control::Resolved(resolved) => resolved.apply(wanted).await?,
            Control::ResolvConf(file) => file.apply(wanted)?,
            Control::Off(_) => {}
        }
        self.known.is_intact = true;

        Ok(())
    }

    /// Restores what there was before; a no-op if nothing was set, or if somebody else has set something since.
    ///
    /// # Errors
    ///
    /// The settings can't be written.
    pub async fn revert(&mut self) -> Result<(), ResolverError> {
        match &mut self.control {
            Control::Resolved(resolved) => resolved.revert().await?,
            Control::ResolvConf(file) => file.revert()?,
            Control::Off(_) => {}
        }
        self.known.is_intact = true;

        Ok(())
    }

    /// Has the machine forget the answers that it keeps, where it keeps any.
    pub async fn flush(&mut self) {
        if let Control::Resolved(resolved) = &self.control
            && let Err(error) = resolved.flush().await
        {
            tracing::debug!(%error, "old answers are kept");
        }
    }

    /// Waits until the machine would ask others than it did when [`system`](Self::system) was called last, or until what
    /// was set is no longer in place; then [`apply`](Self::apply) again. What this value writes itself is no change.
    ///
    /// Dropping the future loses no change. It begins anew to look into one, though, and asking systemd-resolved takes
    /// some milliseconds: wait where little else is waited for.
    ///
    /// # Errors
    ///
    /// There won't be any notice any more.
    pub async fn changed(&mut self) -> Result<(), ResolverError> {
        loop {
            // Whoever doesn't answer may do so soon, and no file changes then.
            let must_look = self.known.system.is_none();
            self.watch.changed(must_look).await?;
            let observed = self.control.observe().await;
            self.watch.looked();
            if observed != self.known {
                self.known = observed;
                return Ok(());
            }
        }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            resolved: "/run/systemd/resolve".into(),
            resolvectl: "resolvectl".into(),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolved => "systemd-resolved",
            Self::ResolvConf => "resolv.conf",
            Self::Off => "off",
        })
    }
}

impl Control {
    async fn system(&self) -> Result<Resolvers, ResolverError> {
        match self {
            Self::Resolved(resolved) => resolved.system().await,
            Self::ResolvConf(file) => file.system(),
            Self::Off(path) => Resolvers::read(path).map_err(ResolverError::file("read", path)),
        }
    }

    async fn observe(&self) -> Observation {
        let is_intact = match self {
            Self::Resolved(resolved) => resolved.is_intact().await,
            Self::ResolvConf(file) => file.is_intact(),
            Self::Off(_) => true,
        };
        let system = self.system().await;
        if let Err(error) = &system {
            tracing::debug!(%error, "the system's resolvers are not known");
        }

        Observation {
            system: system.ok(),
            is_intact,
        }
    }
}

async fn choose(resolved: Resolved, file: ResolvConfFile, paths: &Paths) -> Control {
    let not_resolved = if leads_to_resolved(paths) {
        match resolved.check().await {
            Ok(()) => return Control::Resolved(resolved),
            Err(error) => error,
        }
    } else {
        ResolverError::NotResolved {
            path: paths.resolv_conf.clone(),
        }
    };
    let not_file = match file.check() {
        Ok(()) => return Control::ResolvConf(file),
        Err(error) => error,
    };
    tracing::info!(%not_resolved, %not_file, "This machine's resolver settings stay as they are");

    Control::Off(paths.resolv_conf.clone())
}

/// Whether programs that read `/etc/resolv.conf` come to ask systemd-resolved.
fn leads_to_resolved(paths: &Paths) -> bool {
    let first = Resolvers::read(&paths.resolv_conf).unwrap_or_default();
    if first
        .servers
        .first()
        .is_some_and(|server| server.ip() == STUB)
    {
        return true;
    }
    let is_its_own = real(&paths.resolv_conf)
        .zip(real(&paths.resolved))
        .is_some_and(|(file, directory)| file.starts_with(directory));
    if is_its_own {
        tracing::warn!(
            file = %paths.resolv_conf.display(),
            "Programs may ask systemd-resolved's upstream servers past it; link the file to `stub-resolv.conf` instead"
        );
    }

    is_its_own
}

fn real(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

/// Whether a domain can be written into a file or a command line and means what it says there.
fn is_domain(text: &str) -> bool {
    // RFC 1035, section 3.1.
    const MAX_LEN: usize = 253;
    let is_label = |label: &str| {
        let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && !label.starts_with('-') && label.bytes().all(is_usual)
    };
    let name = text.strip_suffix('.').unwrap_or(text);

    name.len() <= MAX_LEN && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests;
