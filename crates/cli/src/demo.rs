//! The demo: a whole system on this machine alone (cli.md "Demo").
//!
//! ```text
//! network       namespaces, cables, a router        children   portal, relay, gateway, client: processes
//! certificates  an authority for the run            play       what happens, in order
//! http, ping    what goes through the tunnel        report     what it has shown; picture, narration
//! ```

mod body;
mod certificates;
mod children;
mod http;
mod narration;
mod network;
mod picture;
mod ping;
mod plan;
mod play;
mod report;
mod scratch;
mod topology;

use std::env;
use std::fs::OpenOptions;
use std::io;
use std::sync::Arc;
use std::thread;

use connlib_os::namespace::{Namespace, NamespaceError, enter_user_namespace};
use connlib_os::process;

use crate::args::DemoArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure, print};
use crate::logging::{self, Alarms};
use crate::run;

use children::{Children, Death};
use narration::{Logs, Narration, Output};
use network::{DirectPath, Network};
use play::Play;
use scratch::Scratch;
use tokio::sync::mpsc::UnboundedReceiver;
use topology::Roles;

pub(crate) use scratch::sweep;

/// Brings everything up, fetches, reports, and takes everything down.
///
/// # Errors
///
/// Exit 2: the topology file. Exit 5: no rights; the message says what grants them. Else: what has failed.
pub(crate) fn run(args: &DemoArgs, environment: &Environment) -> Result<(), Failure> {
    let roles = Roles::read(args.topology.as_deref())?;
    // A user namespace needs a process with a single thread.
    gain_rights()?;
    let alarms = logging::init_from(environment, "warn")?;

    run::block_on(demonstrate(args, roles, alarms))
}

/// Holds a namespace until it is killed: what the hidden verb does.
pub(crate) fn hold() -> ! {
    loop {
        thread::park();
    }
}

async fn demonstrate(args: &DemoArgs, roles: Roles, alarms: Alarms) -> Result<(), Failure> {
    let output = match args.json {
        true => Output::Json,
        false => Output::People,
    };
    let logs = match args.verbose {
        true => Logs::Shown,
        false => Logs::Hidden,
    };
    let narration = Narration::begin(output, logs);
    let mut signals = run::Signals::new()?;
    let program = env::current_exe().map_err(|error| Failure::os("find this program", &error))?;
    let scratch = Scratch::create(&program)?;
    let (children, mut deaths) = Children::new(&program, scratch.path(), alarms.clone(), narration);

    let performance = perform(args, &roles, &children, &scratch, alarms, narration);
    let result = tokio::select! {
        result = performance => result,
        Some(death) = deaths.recv() => Err(death.into_failure()),
        _ = signals.next() => Err(Failure::new(Exit::Failed, "the demo was interrupted; nothing of it is left")),
    };
    if result.is_ok() && args.keep {
        narration.step("Everything stays up until Ctrl-C");
        stay(&mut signals, &mut deaths, narration).await;
    }

    children.stop().await;
    scratch.remove().await;
    result
}

/// Everything up to the report.
async fn perform(
    args: &DemoArgs,
    roles: &Roles,
    children: &Children,
    scratch: &Scratch,
    alarms: Alarms,
    narration: Narration,
) -> Result<(), Failure> {
    let direct = match args.relayed {
        true => DirectPath::Forbidden,
        false => DirectPath::Allowed,
    };
    let network = Arc::new(Network::create(direct).await?);
    let play = Play {
        args,
        roles,
        children,
        scratch,
        network,
        direct,
        alarms,
        narration,
    };
    let report = play.perform().await?;

    narration.show(format_args!("{}\n\n{report}", picture::draw(report.path)));
    if args.json {
        let json = serde_json::to_string(&report).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format_args!("can't print the report: {error}"),
            )
        })?;
        print(format_args!("{json}\n"))?;
    }
    match report.ok {
        true => Ok(()),
        false => Err(Failure::new(
            Exit::Failed,
            "the demo has not shown what it should; its report says what is wrong",
        )),
    }
}

/// Waits for a signal, and tells which programs have ended in the meantime.
async fn stay(
    signals: &mut run::Signals,
    deaths: &mut UnboundedReceiver<Death>,
    narration: Narration,
) {
    loop {
        tokio::select! {
            _ = signals.next() => return,
            Some(death) = deaths.recv() => narration.step(death),
        }
    }
}

/// Sees to it that this process may make namespaces, interfaces and routes.
fn gain_rights() -> Result<(), Failure> {
    let has_rights = match Namespace::create() {
        Ok(_) => true,
        Err(NamespaceError::PermissionDenied { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    if !has_rights {
        enter_user_namespace()?;
    }

    // Rights over a network of one's own don't open the device.
    match OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
    {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure::new(
            Exit::Os,
            format_args!(
                "can't open /dev/net/tun as this user: {error}; allow it with `sudo chmod 0666 /dev/net/tun` or run as root"
            ),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound && process::effective_uid() != 0 => {
            Err(Failure::new(
                Exit::Os,
                "this machine has no /dev/net/tun; make it with `sudo modprobe tun`",
            ))
        }
        // Anything else shows when the device is made.
        _ => Ok(()),
    }
}
