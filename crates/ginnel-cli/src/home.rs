//! Which home the System V and POSIX objects of this run are in: `--namespace`, or `GINNEL_NAMESPACE`.

use std::sync::OnceLock;

use ginnel::{Endpoint, Namespace};

use crate::failure::{Failure, Result};

/// The environment variable, which our own children inherit the choice by.
pub(crate) const VARIABLE: &str = "GINNEL_NAMESPACE";

/// What the kernel's own is called.
pub(crate) const KERNEL_NAME: &str = "kernel";

static HOME: OnceLock<Namespace> = OnceLock::new();
static KERNEL: Namespace = Namespace::kernel();

/// The option of the verbs that use objects with names.
#[derive(Debug, clap::Args)]
pub(crate) struct HomeArgs {
    /// In which home a queue, semaphore or memory is: a user-space namespace's name or directory, or `kernel`; what the
    /// variable GINNEL_NAMESPACE says unless given, and the kernel's if it says nothing.
    #[arg(long, value_name = "NAME|PATH")]
    namespace: Option<String>,
}

impl HomeArgs {
    /// Opens what was chosen, for the whole run. Before anything else is done.
    pub(crate) fn choose(&self) -> Result<&'static Namespace> {
        choose(&self.name(), false)
    }

    /// As [`HomeArgs::choose`], and makes the namespace if there is none.
    pub(crate) fn choose_or_make(&self) -> Result<&'static Namespace> {
        choose(&self.name(), true)
    }

    fn name(&self) -> String {
        self.namespace.clone().unwrap_or_else(from_environment)
    }

    /// An endpoint that has no home but the kernel's, with a home that was named for it.
    pub(crate) fn check(&self, endpoint: &Endpoint) -> Result<()> {
        if has_homes(endpoint) || self.namespace.as_deref().is_none_or(|name| name == KERNEL_NAME) {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{endpoint}: only System V and POSIX objects are in a namespace; leave --namespace out"
        )))
    }
}

/// For a process of ours that was started with the variable.
pub(crate) fn inherit() -> Result<()> {
    choose(&from_environment(), false).map(drop)
}

fn from_environment() -> String {
    std::env::var(VARIABLE).ok().filter(|name| !name.is_empty()).unwrap_or_else(|| KERNEL_NAME.into())
}

/// The home that was chosen; the kernel's if none was.
pub(crate) fn current() -> &'static Namespace {
    HOME.get().unwrap_or(&KERNEL)
}

/// What a child of ours is to be told.
pub(crate) fn for_children() -> String {
    current().to_string()
}

/// Whether it is one of the six kinds that a user-space home has.
pub(crate) fn has_homes(endpoint: &Endpoint) -> bool {
    matches!(
        endpoint,
        Endpoint::SysvQueue(_)
            | Endpoint::SysvSegment(_)
            | Endpoint::SysvSemaphore(..)
            | Endpoint::PosixQueue(_)
            | Endpoint::PosixShm(_)
            | Endpoint::PosixSemaphore(_)
    )
}

fn choose(name: &str, make: bool) -> Result<&'static Namespace> {
    let options = Namespace::options().create(make);
    let opened = match name {
        KERNEL_NAME => return Ok(HOME.get_or_init(Namespace::kernel)),
        path if path.contains('/') => options.at(path),
        name => options.open(name),
    };
    let home = opened.map_err(|error| match error.errno_name() {
        "ENOENT" => Failure::failed(format!(
            "{}: there is no such namespace; `ginnel create --namespace {name} ENDPOINT` makes it",
            error.object()
        )),
        _ => Failure::failed(error),
    })?;
    Ok(HOME.get_or_init(|| home))
}
