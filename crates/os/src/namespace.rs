//! Network namespaces without names: they vanish with the last process and descriptor that holds them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::path::{Component, Path};
use std::process::Command;
use std::thread;

use crate::sys;

/// A network namespace: interfaces, addresses, routes, rules and sockets of its own.
///
/// It lives as long as this value, or a process, socket or thread in it.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Creates a namespace whose only interface is a loopback that is up.
    ///
    /// # Errors
    ///
    /// [`NamespaceError::PermissionDenied`]: needs CAP_SYS_ADMIN; see [`enter_user_namespace`] for the way without.
    pub fn create() -> Result<Self, NamespaceError> {
        on_a_thread(|| {
            sys::namespace::unshare(libc::CLONE_NEWNET)
                .map_err(|source| NamespaceError::from_os("create a network namespace", source))?;
            set_loopback_up()?;

            Self::of_this_thread()
        })?
    }

    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    ///
    /// `/proc` is not mounted.
    pub fn of_this_thread() -> Result<Self, NamespaceError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The namespace that the main thread of a process is in.
    ///
    /// # Errors
    ///
    /// [`NamespaceError::NoSuchProcess`], or [`NamespaceError::PermissionDenied`] for processes of other users.
    pub fn of_pid(pid: u32) -> Result<Self, NamespaceError> {
        match Self::open(&format!("/proc/{pid}/ns/net")) {
            Err(NamespaceError::Os { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(NamespaceError::NoSuchProcess { pid })
            }
            result => result,
        }
    }

    /// A number that no other namespace has while this one lives.
    ///
    /// # Errors
    ///
    /// None is known.
    pub fn id(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.ino())
    }

    fn open(path: &str) -> Result<Self, NamespaceError> {
        let file = File::open(path)
            .map_err(|source| NamespaceError::from_os("open a network namespace", source))?;

        Ok(Self { file })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Runs `f` inside `namespace`, on a thread that ends with it; a panic of `f` goes on in the caller.
///
/// What `f` opens (sockets, TUN devices) stays in the namespace wherever it is used; what it spawns is there, too.
///
/// # Errors
///
/// The thread couldn't be started or was not let in; `f` did not run.
pub fn run_in<T: Send>(
    namespace: &Namespace,
    f: impl FnOnce() -> T + Send,
) -> Result<T, NamespaceError> {
    on_a_thread(|| {
        sys::namespace::enter(namespace.as_fd(), libc::CLONE_NEWNET)
            .map_err(|source| NamespaceError::from_os("enter a network namespace", source))?;

        Ok(f())
    })?
}

/// Arranges that `command`'s process runs inside `namespace` (if given) and is killed when its parent dies.
///
/// The parent in this sense is the *thread* that spawns the process: spawn from one that lives as long as the child
/// shall, and not inside [`run_in`].
///
/// # Errors
///
/// The process has too many open files.
pub fn command_in(
    command: &mut Command,
    namespace: Option<&Namespace>,
) -> Result<(), NamespaceError> {
    let namespace = namespace
        .map(|namespace| namespace.as_fd().try_clone_to_owned())
        .transpose()
        .map_err(|source| NamespaceError::from_os("hand on a network namespace", source))?;
    sys::namespace::prepare_child(command, namespace);

    Ok(())
}

/// Makes this process root of a user namespace of its own, with network and mount namespaces that belong to it.
///
/// That gives an unprivileged user all that this module and netlink need. The process must have a single thread: call it
/// first of all, before a runtime is built.
///
/// # Errors
///
/// [`NamespaceError::UserNamespacesOff`]: the system doesn't let users do that; the message says what does.
/// [`NamespaceError::Threads`]: it came too late.
pub fn enter_user_namespace() -> Result<(), NamespaceError> {
    let (uid, gid) = (sys::process::effective_uid(), sys::process::effective_gid());
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS;
    sys::namespace::unshare(flags).map_err(|source| match source.raw_os_error() {
        Some(libc::EINVAL) => NamespaceError::Threads,
        Some(libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EUSERS) => {
            NamespaceError::UserNamespacesOff { remedy: remedy() }
        }
        _ => NamespaceError::from_os("create a user namespace", source),
    })?;

    let write = |path: &str, contents: &str| {
        fs::write(path, contents)
            .map_err(|_| NamespaceError::UserNamespacesOff { remedy: remedy() })
    };
    // An unprivileged user may map their group only after giving up the right to drop groups (user_namespaces(7)).
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", &format!("0 {gid} 1"))?;

    // Some systems let users in and take the rights away inside; this finds out.
    set_loopback_up().map_err(|_| NamespaceError::UserNamespacesOff { remedy: remedy() })
}

/// Sets a network parameter of the namespace that the calling thread is in, such as `ipv4/ip_forward` to `1`.
///
/// `path` is relative to `/proc/sys/net`.
///
/// # Errors
///
/// [`NamespaceError::PermissionDenied`], or an I/O error if there is no such parameter or it doesn't take that value.
pub fn set_sysctl_net(path: &str, value: &str) -> Result<(), NamespaceError> {
    let refused = |source| NamespaceError::Sysctl {
        path: path.into(),
        source,
    };
    let is_plain = |component| matches!(component, Component::Normal(_));
    if !Path::new(path).components().all(is_plain) {
        return Err(refused(io::ErrorKind::InvalidInput.into()));
    }

    fs::write(Path::new("/proc/sys/net").join(path), value).map_err(refused)
}

/// Why something about namespaces did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// This process may not do that.
    #[error(
        "can't {action}: not permitted; run as root or grant the right with `setcap cap_sys_admin,cap_net_admin+ep` on the program"
    )]
    PermissionDenied {
        /// What was tried.
        action: &'static str,
    },
    /// The system doesn't let users have namespaces of their own.
    #[error("this system doesn't let unprivileged users have network namespaces; {remedy}")]
    UserNamespacesOff {
        /// The command that changes it.
        remedy: &'static str,
    },
    /// The process has several threads already, which a user namespace doesn't allow.
    #[error("can't enter a user namespace: the process has several threads; do it first of all")]
    Threads,
    /// There is no such process.
    #[error("process {pid} doesn't exist (any more)")]
    NoSuchProcess {
        /// Its id.
        pid: u32,
    },
    /// A network parameter was not set.
    #[error(
        "can't set the network parameter {path}: {source}; it needs root and a writable /proc/sys"
    )]
    Sysctl {
        /// Which one.
        path: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel refused for another reason.
    #[error("can't {action}: {source}; look into the kernel's log and limits")]
    Os {
        /// What was tried.
        action: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl NamespaceError {
    fn from_os(action: &'static str, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Self::PermissionDenied { action };
        }

        Self::Os { action, source }
    }
}

/// Runs `f` on a thread of its own, because a namespace is a thread's.
fn on_a_thread<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("namespace".into())
            .spawn_scoped(scope, f)
            .map_err(|source| NamespaceError::from_os("start a thread", source))?;

        Ok(thread
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic)))
    })
}

fn set_loopback_up() -> Result<(), NamespaceError> {
    sys::socket::udp(libc::AF_INET)
        .and_then(|socket| sys::tun::set_up(socket.as_fd(), "lo"))
        .map_err(|source| NamespaceError::from_os("bring the loopback interface up", source))
}

/// The command that lets users have namespaces on this system.
fn remedy() -> &'static str {
    let has = |path: &str, value: &str| {
        fs::read_to_string(path).is_ok_and(|contents| contents.trim() == value)
    };

    if has("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "allow it with `sysctl kernel.unprivileged_userns_clone=1` or run as root"
    } else if has("/proc/sys/user/max_user_namespaces", "0") {
        "allow it with `sysctl user.max_user_namespaces=1000` or run as root"
    } else if has(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        "allow it with `sysctl kernel.apparmor_restrict_unprivileged_userns=0` or run as root"
    } else {
        "run as root"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_exist_has_no_namespace() {
        // Larger than any process id can be (proc(5), pid_max).
        let error = Namespace::of_pid(u32::MAX).unwrap_err();

        assert!(matches!(error, NamespaceError::NoSuchProcess { .. }));
    }

    #[test]
    fn threads_share_the_namespace_of_their_process() {
        let of_process = Namespace::of_pid(std::process::id()).unwrap();
        let of_thread = Namespace::of_this_thread().unwrap();

        assert_eq!(of_process.id().unwrap(), of_thread.id().unwrap());
    }

    #[test]
    fn a_parameter_outside_of_the_network_is_refused() {
        for path in [
            "../kernel/hostname",
            "/proc/sys/kernel/hostname",
            "ipv4/../../kernel/hostname",
        ] {
            let error = set_sysctl_net(path, "x").unwrap_err();
            let NamespaceError::Sysctl { source, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(source.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_process_with_threads_can_not_enter_a_user_namespace() {
        let error = on_a_thread(enter_user_namespace).unwrap().unwrap_err();

        assert!(matches!(
            error,
            NamespaceError::Threads | NamespaceError::UserNamespacesOff { .. }
        ));
    }

    #[test]
    fn a_command_without_a_namespace_runs_where_its_parent_is() {
        let mut command = Command::new("true");
        command_in(&mut command, None).unwrap();

        assert!(command.status().unwrap().success());
    }
}
