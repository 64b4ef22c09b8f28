//! `ginnel endpoints`: the notation that names things.

use std::process::ExitCode;

use ginnel::Endpoint;
use serde::Serialize;

use crate::failure::Result;
use crate::output;

/// List the notation that names endpoints: every KIND, what follows its colon, and an example.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel endpoints
  ginnel endpoints | grep posix")]
pub(crate) struct Args {
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Scheme<'a> {
    kind: &'a str,
    name: &'a str,
    example: &'a str,
}

pub(crate) fn run(args: Args) -> Result {
    if args.json {
        for (kind, name, example) in Endpoint::schemes() {
            output::json_line(&Scheme { kind, name, example })?;
        }
        return Ok(ExitCode::SUCCESS);
    }
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
