//! What can be typed.

use clap::{Parser, Subcommand};

use crate::cmd;

/// Every way that processes on this host talk to each other: run, measured, and at your fingertips.
#[derive(Debug, Parser)]
#[command(name = "ginnel", version, max_term_width = 100, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const AFTER_HELP: &str = "\
Endpoints are named KIND:NAME, for instance fifo:/tmp/a, sysv-msg:0x2a, posix-mq:/jobs, unix:/tmp/s, tcp:host:port.
`ginnel endpoints` lists them all.

Exit codes: 0 done, 1 failed or found something, 2 wrong usage.";

/// The verbs, in the order that `ginnel help` shows them.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Tour(cmd::tour::Args),
    Run(cmd::run::Args),
    Env(cmd::env::Args),
    Bench(cmd::bench::Args),
    Send(cmd::send::Args),
    Recv(cmd::recv::Args),
    Peek(cmd::peek::Args),
    Signal(cmd::signal::Args),
    Lock(cmd::lock::Args),
    Create(cmd::create::Args),
    Rm(cmd::rm::Args),
    Ls(cmd::ls::Args),
    Gc(cmd::gc::Args),
    Serve(cmd::serve::Args),
    Call(cmd::call::Args),
    Chat(cmd::chat::Args),
    Pipe(cmd::pipe::Args),
    Endpoints(cmd::endpoints::Args),
    Completions(cmd::completions::Args),
    Man(cmd::man::Args),
    /// Be the guardian of another ginnel process.
    #[command(name = crate::guardian::VERB, hide = true)]
    Guardian,
    /// Remove a private namespace when nobody uses it any more.
    #[command(name = crate::warden::VERB, hide = true)]
    Warden(crate::warden::Args),
    /// Run one row of the tour, or be the other end of one.
    #[command(name = crate::tour::VERB, hide = true)]
    TourRow(crate::tour::RowArgs),
    /// Measure one row of the benchmark.
    #[command(name = cmd::bench::VERB, hide = true)]
    BenchRow(cmd::bench::RowArgs),
}
