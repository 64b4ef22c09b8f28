//! The verbs, one file each.

pub(crate) mod bench;
pub(crate) mod call;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod create;
pub(crate) mod endpoints;
pub(crate) mod env;
pub(crate) mod gc;
pub(crate) mod lock;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod peek;
pub(crate) mod pipe;
pub(crate) mod recv;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod signal;
pub(crate) mod tour;

use crate::cli::Verb;
use crate::failure::Result;

/// Does what was typed.
pub(crate) fn run(verb: Verb) -> Result {
    match verb {
        Verb::Tour(args) => tour::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Create(args) => create::run(args),
        Verb::Env(args) => env::run(args),
        Verb::Gc(args) => gc::run(args),
        Verb::Lock(args) => lock::run(args),
        Verb::Ls(args) => ls::run(args),
        Verb::Peek(args) => peek::run(args),
        Verb::Recv(args) => recv::run(args),
        Verb::Rm(args) => rm::run(args),
        Verb::Run(args) => run::run(args),
        Verb::Send(args) => send::run(args),
        Verb::Signal(args) => signal::run(args),
        Verb::Serve(args) => serve::run(args),
        Verb::Call(args) => call::run(args),
        Verb::Chat(args) => chat::run(args),
        Verb::Pipe(args) => pipe::run(args),
        Verb::Endpoints(args) => endpoints::run(args),
        Verb::Completions(args) => completions::run(args),
        Verb::Man(args) => man::run(args),
        Verb::Guardian => crate::guardian::run(),
        Verb::Warden(args) => crate::warden::run(args),
        Verb::BenchRow(args) => bench::measure_row(args),
        Verb::TourRow(args) => crate::tour::run_row(args),
    }
}
