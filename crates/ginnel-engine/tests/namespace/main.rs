//! The registry: what the kernel's `get` and `ctl` calls give, who may do what, what is refused, what the dead leave.

#[path = "../common/mod.rs"]
mod common;

mod death;
mod directory;
mod names;
mod objects;
mod planted;
mod unused;

use ginnel_engine::Result;
use ginnel_engine::namespace::{Draft, Kind, Namespace, mark_removed};
use ginnel_engine::segment::Segment;
use libc::{IPC_CREAT, IPC_EXCL};

const QUEUE: Kind = Kind::SysvQueue;
const SET: Kind = Kind::SysvSemaphores;
const NEW: i32 = IPC_CREAT | IPC_EXCL;

fn plain(draft: &Draft<'_>) -> Result<Segment> {
    draft.segment(1 << 20, |_| Ok(()))
}

fn never(_: &Draft<'_>) -> Result<Segment> {
    panic!("nothing is to be made")
}

fn home(name: &str) -> Namespace {
    Namespace::options().create(true).open_named(name).unwrap()
}

/// One that everybody shares.
fn shared() -> Namespace {
    Namespace::options().create(true).mode(0o1777).open("/dev/shm/everybody").unwrap()
}

fn doom(segment: &Segment) -> Result<()> {
    mark_removed(segment);
    Ok(())
}

fn files(home: &Namespace, kind: Kind) -> Vec<String> {
    let entries = std::fs::read_dir(home.path().join(kind.directory())).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
