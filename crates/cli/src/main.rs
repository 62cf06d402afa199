//! The program `connlib`: client, gateway, relay, portal, demo and bench.
//!
//! It reads settings, starts what the libraries offer, and says how it went: by sentences, JSON and exit codes
//! (cli.md).

mod args;
mod bench;
mod certificate;
mod demo;
mod duration;
mod environment;
mod exit;
mod identity;
mod logging;
mod names_file;
mod portal;
mod private_file;
mod proxy;
mod ready;
mod rig;
mod roles;
mod run;
mod settings;
mod status;
mod token;
mod why;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use environment::Environment;
use exit::Failure;

fn main() -> ExitCode {
    // Before anything else: other threads may read the environment.
    let environment = Environment::take();
    let cli = Cli::parse();
    let result = environment.and_then(|environment| perform(&cli.command, &environment));

    exit::report(&result)
}

fn perform(command: &Command, environment: &Environment) -> Result<(), Failure> {
    command.refuse_later()?;

    match command {
        Command::Client(args) => roles::client(args, environment),
        Command::Gateway(args) => roles::gateway(args, environment),
        Command::Relay(args) => roles::relay(args, environment),
        Command::Status(args) => status::run(args, environment),
        Command::Why(args) => why::run(args, environment),
        Command::Portal(command) => portal::run(command, environment),
        Command::Bench(args) => bench::run(args, environment),
        Command::Demo(args) => demo::run(args, environment),
        Command::RigHold => rig::hold(),
        Command::RigSweep(args) => rig::sweep(&args.directory),
        Command::Capture(_) | Command::Metrics(_) | Command::Netcheck(_) | Command::Ping(_) => {
            Err(Failure::later("this verb"))
        }
    }
}
