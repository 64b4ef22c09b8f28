//! The verbs, one file each.

pub(crate) mod call;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod endpoints;
pub(crate) mod man;
pub(crate) mod pipe;
pub(crate) mod serve;
pub(crate) mod tour;

use crate::cli::Verb;
use crate::failure::Result;

/// Does what was typed.
pub(crate) fn run(verb: Verb) -> Result {
    match verb {
        Verb::Tour(args) => tour::run(args),
        Verb::Serve(args) => serve::run(args),
        Verb::Call(args) => call::run(args),
        Verb::Chat(args) => chat::run(args),
        Verb::Pipe(args) => pipe::run(args),
        Verb::Endpoints(args) => endpoints::run(args),
        Verb::Completions(args) => completions::run(args),
        Verb::Man(args) => man::run(args),
        Verb::Guardian => crate::guardian::run(),
        Verb::TourRow(args) => crate::tour::run_row(args),
    }
}
