//! The demo: a whole system on this machine alone (cli.md "Demo").
//!
//! ```text
//! play        what happens, in order, on a rig        report    what it has shown; picture
//! http, body  what goes through the tunnel          names     how it is found
//! ```

mod body;
mod http;
mod names;
mod picture;
mod play;
mod report;

use std::env;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use crate::args::DemoArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure, print};
use crate::logging::{self, Alarms};
use crate::rig::children::{Children, Death};
use crate::rig::gain_rights;
use crate::rig::narration::{Logs, Narration, Output};
use crate::rig::network::{DirectPath, Network};
use crate::rig::plan::Place;
use crate::rig::scratch::Scratch;
use crate::rig::system::System;
use crate::rig::topology::Roles;
use crate::run;

use play::Play;

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
    let network = Arc::new(Network::create(&Place::DEMO, direct).await?);
    let play = Play {
        args,
        system: System {
            roles,
            children,
            scratch,
            network,
            narration,
            turn_server: None,
        },
        direct,
        alarms,
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
