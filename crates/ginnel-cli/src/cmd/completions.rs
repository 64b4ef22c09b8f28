//! `ginnel completions`: what a shell needs to complete our command line.

use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Result;
use crate::output;

/// Print the completions for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel completions bash > /etc/bash_completion.d/ginnel
  ginnel completions fish | source")]
pub(crate) struct Args {
    shell: Shell,
}

pub(crate) fn run(args: Args) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut visible(), "ginnel", &mut script);
    output::print(script)?;
    Ok(ExitCode::SUCCESS)
}

/// The command line without the verbs that are not for people: a generator offers hidden ones too.
fn visible() -> Command {
    let all = Cli::command();
    let verbs = all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    Command::new("ginnel").version(env!("CARGO_PKG_VERSION")).subcommands(verbs)
}
