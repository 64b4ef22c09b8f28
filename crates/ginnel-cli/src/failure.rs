//! How the command fails: one line that says what and what to try, and the exit code.
//!
//! 0: done (a reader that closes our standard output is done with us: that is success). 1: failed. 2: wrong usage.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::output;

/// Why a verb ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The work failed: exit 1.
    Failed(String),
    /// The words of the command line do not fit together: exit 2.
    Usage(String),
    /// Whoever read our standard output has gone: exit 0, quietly.
    OutputClosed,
}

pub(crate) type Result<T = ExitCode> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn failed(why: impl fmt::Display) -> Failure {
        Failure::Failed(why.to_string())
    }

    pub(crate) fn usage(why: impl fmt::Display) -> Failure {
        Failure::Usage(why.to_string())
    }

    /// Tells the user, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Failure::OutputClosed => ExitCode::SUCCESS,
            Failure::Failed(why) => {
                output::note(why);
                ExitCode::from(1)
            }
            Failure::Usage(why) => {
                output::note(why);
                output::tell("For more, try `ginnel help`.\n");
                ExitCode::from(2)
            }
        }
    }
}

impl From<ginnel::Error> for Failure {
    fn from(error: ginnel::Error) -> Failure {
        Failure::failed(error)
    }
}

/// Names what was being done when an error of the standard library came up.
pub(crate) trait Context<T> {
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure::Failed(format!("{what}: {error}")))
    }
}
