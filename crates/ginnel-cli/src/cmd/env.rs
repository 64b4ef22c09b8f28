//! `ginnel env`: the environment in which programs are served, for a shell or a unit file.

use std::process::ExitCode;

use clap::ValueEnum;

use super::run::named;
use crate::failure::Result;
use crate::{drop_in, home, output};

/// Print the variables with which programs are served in a namespace, as `ginnel run` sets them.
///
/// For a shell (`eval "$(ginnel env --namespace jobs)"`), or for a unit file of systemd. The namespace is made by the first
/// `ginnel run` or `ginnel create` in it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  eval \"$(ginnel env --namespace jobs)\"
  ginnel env --namespace /dev/shm/jobs --format systemd >> /etc/systemd/system/jobs.service.d/ginnel.conf")]
pub(crate) struct Args {
    /// The namespace's name or directory; what GINNEL_NAMESPACE says unless given, and `default` if it says nothing.
    #[arg(long, value_name = "NAME|PATH")]
    namespace: Option<String>,
    /// For whom.
    #[arg(long, value_enum, default_value = "sh")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// `export NAME='value'`
    Sh,
    /// `Environment="NAME=value"`
    Systemd,
}

pub(crate) fn run(args: Args) -> Result {
    let library = drop_in::library()?;
    let variables = [
        (drop_in::PRELOAD, drop_in::preload(&library).to_string_lossy().into_owned()),
        (home::VARIABLE, named(args.namespace.as_deref())),
    ];
    for (name, value) in variables {
        output::line(match args.format {
            Format::Sh => format!("export {name}='{}'", value.replace('\'', r"'\''")),
            Format::Systemd => {
                let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%");
                format!("Environment=\"{name}={value}\"")
            }
        })?;
    }
    Ok(ExitCode::SUCCESS)
}
