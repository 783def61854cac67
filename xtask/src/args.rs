//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Tasks for working on strand
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run the harness once, or many times with a new seed each, up to the first failure
    ///
    /// Takes the flags of the harness: `cargo xtask stress --help` lists them.
    #[command(disable_help_flag = true)]
    Stress(Flags),
    /// Attack the log tier by tier: faults, crash states, kills, power cuts, damage
    ///
    /// Takes the flags of the harness: `cargo xtask torture --help` lists them.
    #[command(disable_help_flag = true)]
    Torture(Flags),
    /// Cut the power under ext4, XFS and btrfs of this kernel; needs root, loop devices and QEMU
    ///
    /// Takes the flags of the harness: `cargo xtask powercut --help` lists them.
    #[command(disable_help_flag = true)]
    Powercut(Flags),
    /// Alternate all workloads for a time; report the trend of files, memory, disk and latency
    ///
    /// Takes the flags of the harness: `cargo xtask soak --help` lists them.
    #[command(disable_help_flag = true)]
    Soak(Flags),
    /// Run every store that is installed here in the same ways, and print one table
    ///
    /// Takes the flags of the harness: `cargo xtask compare --help` lists them.
    #[command(disable_help_flag = true)]
    Compare(Flags),
    /// Apply each patch of `xtask/mutants` to a copy, and show that its tier of tests fails
    Mutants(Mutants),
    /// Measure strand and the systems it is compared with
    ///
    /// Takes the flags of the benchmark: `cargo xtask bench --help` lists them.
    #[command(disable_help_flag = true)]
    Bench(Flags),
    /// Build for other systems
    #[command(subcommand)]
    Cross(Cross),
    /// Compare the public API with `api.txt` of each published crate; check that it has examples
    Api {
        /// Write the files instead
        #[arg(long)]
        bless: bool,
    },
    /// Run what CI checks beside the tests, or only the parts named
    Ci {
        /// All parts but `test` if none is named
        parts: Vec<Part>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Flags that are passed on
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) flags: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Mutants {
    /// Only these patches, by the name of the file without `.patch`
    pub(crate) names: Vec<String>,
    /// Time for each tier
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub(crate) seconds: u32,
    /// Seed of each tier
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Write a report here
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Exit status: 0 all passed, 1 something failed, 2 usage, 4 not run: a tool is missing

Environment:
  STRAND_CROSS_RUSTC, STRAND_CROSS_CARGO  the compiler and its cargo
  STRAND_CROSS_CC                         the C compiler for Windows (mingw)
  STRAND_CROSS_WINE                       Wine's 64-bit loader
  STRAND_CROSS_PREFIX                     Wine's files, target/cross/wine if not set")]
pub(crate) enum Cross {
    /// Build for x86_64-pc-windows-gnu, and run tests and short runs of the harness under Wine
    Windows,
    /// Type-check for macOS, Windows with MSVC, musl, 32-bit Linux and FreeBSD
    Check {
        /// Only for these
        targets: Vec<String>,
    },
}

/// A part of `cargo xtask ci`, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Part {
    /// rustfmt
    Format,
    /// clippy, for each set of features
    Clippy,
    /// rustdoc, and the public API against `api.txt`
    Doc,
    /// Order of the modules, no circles, width of the comments
    Layout,
    /// The workflow files call tasks and flags that exist
    Workflows,
    /// Licences, sources and the Rust that dependencies need
    Dependencies,
    /// The published packages build as their users get them
    Package,
    /// Every patch of `xtask/mutants` applies
    Patches,
    /// All tests; runs only when named, since `.ci/run` runs them first
    Test,
    /// The tests that need a feature
    Features,
    /// The model of the commit protocol, in release mode
    Model,
    /// Short runs of the harness
    Stress,
    /// The quick torture
    Torture,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Task, clap::Error> {
        Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.task)
    }

    #[test]
    fn flags_of_other_programs_are_passed_on() {
        for line in ["x stress --agents 5 --help", "x stress --help"] {
            let Ok(Task::Stress(Flags { flags })) = parse(line) else {
                panic!("{line}")
            };
            assert_eq!(flags.last().map(String::as_str), Some("--help"));
        }
    }

    /// As CONTRIBUTING.md says.
    #[test]
    fn help_is_a_task_too() {
        for line in ["x help", "x help ci", "x --help"] {
            let shown = parse(line).expect_err("help ends the program");
            assert_eq!(shown.kind(), clap::error::ErrorKind::DisplayHelp, "{line}");
        }
    }

    #[test]
    fn unknown_tasks_parts_and_flags_are_refused() {
        assert!(parse("x ci format torture").is_ok());
        for line in [
            "x",
            "x deploy",
            "x ci lint",
            "x api --force",
            "x mutants --seconds x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
