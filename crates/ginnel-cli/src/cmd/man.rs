//! `ginnel man`: the man pages, generated from the same words as the help text.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::failure::{Context, Failure, Result};
use crate::output;

/// Print a man page, or write all of them into a directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel man | man -l -
  ginnel man tour | man -l -
  ginnel man --all /usr/local/share/man/man1")]
pub(crate) struct Args {
    /// The verb whose page to print; without one, the page of `ginnel` itself.
    verb: Option<String>,
    /// Write a page for each verb into this directory instead.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "verb")]
    all: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Result {
    match args.all {
        Some(directory) => {
            fs::create_dir_all(&directory).context(directory.display())?;
            write(&directory.join("ginnel.1"), None)?;
            for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
                write(&directory.join(format!("ginnel-{}.1", verb.get_name())), Some(verb.get_name()))?;
            }
        }
        None => output::print(page(args.verb.as_deref())?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &std::path::Path, verb: Option<&str>) -> Result<()> {
    fs::write(path, page(verb)?).context(path.display())
}

fn page(verb: Option<&str>) -> Result<Vec<u8>> {
    let command = Cli::command();
    let (command, title) = match verb {
        None => (command, "ginnel".to_string()),
        Some(name) => command
            .get_subcommands()
            .find(|verb| verb.get_name() == name && !verb.is_hide_set())
            .map(|verb| (verb.clone().bin_name(format!("ginnel {name}")), format!("ginnel-{name}")))
            .ok_or_else(|| Failure::usage(format!("there is no verb {name:?}; `ginnel help` lists them")))?,
    };
    let mut page = Vec::new();
    Man::new(command).title(title).render(&mut page).context("writing the man page")?;
    Ok(page)
}
