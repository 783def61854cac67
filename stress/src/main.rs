//! The command line of `strand-stress`: see the documentation of the library.

#![forbid(unsafe_code)]

#[cfg(unix)]
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use strand_stress::commands::{EXIT_USAGE, powercut, run, soak, torture};
#[cfg(unix)]
use strand_stress::commands::{compare, store};
use strand_stress::run::config::Config;
use strand_stress::run::process;
use strand_stress::soak::worker;
#[cfg(unix)]
use strand_stress::stores::{locked_file, witness};

#[derive(Parser)]
#[command(
    about = "Real processes write to one log; every acknowledged append must be stored, exactly",
    after_help = "Exit status: 0 every invariant holds; 1 one is violated; 2 usage; 3 hang; \
                  4 the environment failed; \
                  5 unknown: nothing could be compared; 130 interrupted (Ctrl-C, SIGTERM, SIGHUP)"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start agents that write, and judge the stored log
    Run(Box<Config>),
    /// Attack the log tier by tier, and print a table of the cases
    Torture(torture::Arguments),
    /// Cut the power under real filesystems of this kernel, and judge what they recover
    Powercut(powercut::Arguments),
    /// Be an agent on a logged device (started by `powercut`)
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    KernelAgent {
        /// The agent's task, as JSON
        spec: String,
    },
    /// Alternate all kinds of runs for a time, and watch for growth
    Soak(soak::Arguments),
    /// Run every store that is installed here, and print one table
    #[cfg(unix)]
    Compare(compare::Arguments),
    /// Try a store's description with one agent, and say what is tested with it
    #[cfg(unix)]
    CheckSpec {
        /// cmd:SPEC.toml, agent:PROGRAM, or the name of a store that comes along
        store: String,
    },
    /// Be a locked file that speaks the protocol of agents (`run --store locked-file`)
    #[cfg(unix)]
    #[command(hide = true)]
    LockedFile {
        /// What is taken out of it
        #[arg(long, value_enum)]
        fault: Option<locked_file::Fault>,
    },
    /// Be the witness of a lock (`run --workload exclusive`)
    #[cfg(unix)]
    #[command(hide = true)]
    Witness(witness::Arguments),
    /// Be a worker (started by `soak`)
    #[command(hide = true)]
    Worker,
    /// Be an agent (started by `run`)
    #[command(hide = true)]
    Agent,
}

fn main() -> ExitCode {
    match Arguments::try_parse().map(|arguments| arguments.command) {
        Ok(Command::Run(config)) => run::main(&config),
        Ok(Command::Torture(arguments)) => torture::main(&arguments),
        Ok(Command::Powercut(arguments)) => powercut::main(&arguments),
        #[cfg(target_os = "linux")]
        Ok(Command::KernelAgent { spec }) => powercut::agent_main(&spec),
        Ok(Command::Soak(arguments)) => soak::main(&arguments),
        #[cfg(unix)]
        Ok(Command::CheckSpec { store }) => store::check_spec(&Config {
            store: match Path::new(&store).extension() {
                Some(extension) if extension == "toml" && !store.contains(':') => {
                    format!("cmd:{store}")
                }
                _ => store,
            },
            ..Config::default()
        }),
        #[cfg(unix)]
        Ok(Command::Compare(arguments)) => compare::main(&arguments),
        #[cfg(unix)]
        Ok(Command::LockedFile { fault }) => locked_file::main(fault),
        #[cfg(unix)]
        Ok(Command::Witness(arguments)) => witness::main(&arguments),
        Ok(Command::Worker) => worker::main(),
        Ok(Command::Agent) => process::main(),
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            // A closed pipe is no failure.
            drop(error.print());
            ExitCode::from(code)
        }
    }
}
