//! Child processes, and what a user without rights is told.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{PoisonError, mpsc};
use std::time::Duration;

use connlib_os::namespace::{Namespace, NamespaceError, command_in, enter_user_namespace};
use connlib_os::netlink::{Netlink, NetlinkError};
use connlib_os::tun::{TunDevice, TunError};
use connlib_os::udp::{UdpConfig, UdpError, UdpSocket};

use super::{PROCESSES, runtime};

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_command_runs_in_its_namespace() {
    let _alone = PROCESSES.lock().unwrap_or_else(PoisonError::into_inner);
    let namespace = Namespace::create().unwrap();
    let mut sleeper = sleep_in(&namespace).spawn().unwrap();

    let of_child = Namespace::of_pid(sleeper.id()).unwrap();
    assert_eq!(of_child.id().unwrap(), namespace.id().unwrap());

    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

/// The process that this test starts and kills; it is no test of its own.
#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn parent_of_a_child_that_must_not_outlive_it() {
    if std::env::var_os(PARENT).is_none() {
        return;
    }
    let namespace = Namespace::create().unwrap();
    let mut child = sleep_in(&namespace).spawn().unwrap();

    eprintln!("child {}", child.id());
    // Until the test kills us.
    child.wait().unwrap();
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn children_die_with_a_killed_parent() {
    let _alone = PROCESSES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut parent = Command::new(std::env::current_exe().unwrap());
    parent
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "processes::parent_of_a_child_that_must_not_outlive_it",
        ])
        .env(PARENT, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command_in(&mut parent, None).unwrap();
    let mut parent = parent.spawn().unwrap();
    let mut stdout = parent.stdout.take().unwrap();
    let child = BufReader::new(parent.stderr.take().unwrap())
        .lines()
        .find_map(|line| {
            Some(
                line.unwrap()
                    .strip_prefix("child ")?
                    .parse::<u32>()
                    .unwrap(),
            )
        })
        .unwrap();
    Namespace::of_pid(child).expect("the child lives");

    parent.kill().unwrap();
    parent.wait().unwrap();

    // The child holds the other end of this pipe for as long as it lives.
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(io::copy(&mut stdout, &mut io::sink())));
    let closed = receiver.recv_timeout(Duration::from_secs(20));
    closed.expect("the child has outlived its parent").unwrap();
}

/// What the next test starts as another user; it is no test of its own.
#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn user_without_rights() {
    if std::env::var_os(UNPRIVILEGED).is_none() {
        return;
    }

    // Under the harness this process has several threads, so it can't enter a user namespace.
    assert!(matches!(
        enter_user_namespace(),
        Err(NamespaceError::Threads | NamespaceError::UserNamespacesOff { .. })
    ));
    let error = Namespace::create().unwrap_err();
    assert!(
        matches!(error, NamespaceError::PermissionDenied { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("setcap"), "{error}");
    let error = TunDevice::create("tun-test").unwrap_err();
    assert!(
        matches!(error, TunError::PermissionDenied { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("setcap"), "{error}");
    let config = UdpConfig::new("127.0.0.1:0".parse().unwrap());
    let error = UdpSocket::bind(&config.clone().with_mark(7)).unwrap_err();
    assert!(matches!(error, UdpError::Mark { mark: 7, .. }), "{error}");
    let (_, recv) = UdpSocket::bind(&config).unwrap().buffer_sizes().unwrap();
    assert!(recv > 0, "smaller buffers are no failure");
    let error = runtime().block_on(async {
        let mut netlink = Netlink::new().unwrap();
        netlink.add_veth("a", "b").await.unwrap_err()
    });
    assert!(
        matches!(error, NetlinkError::PermissionDenied { .. }),
        "{error}"
    );
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn missing_rights_are_named_with_what_grants_them() {
    let _alone = PROCESSES.lock().unwrap_or_else(PoisonError::into_inner);
    // Another user may not run a program in our build directory.
    let directory = std::env::temp_dir().join(format!("connlib-os-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let program = directory.join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&directory, open).unwrap();
    let mut user = Command::new(&program);
    user.args(["--ignored", "--exact", "processes::user_without_rights"])
        .current_dir("/")
        .env(UNPRIVILEGED, "1")
        .gid(NOBODY)
        .uid(NOBODY);

    let output = user.output();
    fs::remove_dir_all(&directory).unwrap();

    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

const PARENT: &str = "CONNLIB_OS_TEST_PARENT";
const UNPRIVILEGED: &str = "CONNLIB_OS_TEST_UNPRIVILEGED";
const NOBODY: u32 = 65_534;

fn sleep_in(namespace: &Namespace) -> Command {
    let mut command = Command::new("sleep");
    command.arg("600");
    command_in(&mut command, Some(namespace)).unwrap();

    command
}
