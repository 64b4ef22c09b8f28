//! `ginnel endpoints`: the notation that names things.

use std::process::ExitCode;

use ginnel::Endpoint;

use crate::failure::Result;
use crate::output;

/// List the notation that names endpoints: every KIND, what follows its colon, and an example.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel endpoints
  ginnel endpoints | grep posix")]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result {
    let mut table = output::table(&["KIND", "NAME", "EXAMPLE"], &[]);
    for (scheme, shape, example) in Endpoint::schemes() {
        table.add_row([format!("{scheme}:"), shape.to_string(), example.to_string()]);
    }
    output::line(output::trim_lines(&table.to_string()))?;
    output::line(
        "\nA System V KEY is a number (0x2a, 42), a file and a project (/path#7, as ftok(3)), or id=3, the id of ipcs(1).\n\
         @NAME is an abstract Unix socket: it has no file and is gone with its last user.",
    )?;
    Ok(ExitCode::SUCCESS)
}
