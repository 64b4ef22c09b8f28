//! A linked list in shared memory, which every process has at another address: offsets instead of pointers.
//!
//! Any number of processes push at once, without a lock: room is taken by one atomic addition, and a node becomes
//! the list's head by one compare-and-swap. A process that is killed in between leaves an unused node, and the list
//! whole.
//!
//! ```text
//! $ cargo run --example linked_list -- push /words alpha beta
//! $ cargo run --example linked_list -- show /words
//! at 0x7f12a4a5e000 and at 0x7f12a4a4e000
//! beta
//! alpha
//! $ cargo run --example linked_list -- remove /words
//! ```

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use bytemuck::{Pod, Zeroable};
use ginnel::memory::{Access, Mapping, Offset, PosixShm};

const USAGE: &str = "usage: linked_list push NAME WORD... | show NAME | remove NAME";

const SIZE: u64 = 1 << 20;
/// The offset of the newest node, null in an empty list.
const HEAD: usize = 0;
/// How many bytes behind the two words are taken.
const TAKEN: usize = 8;
const NODES: usize = 16;

/// The word's bytes follow it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Node {
    next: Offset<Node>,
    word_len: u64,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        ["push", name, ref words @ ..] if !words.is_empty() => push(name, words),
        ["show", name] => show(name),
        ["remove", name] => PosixShm::remove(name),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = outcome {
        eprintln!("linked_list: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn push(name: &str, words: &[&str]) -> ginnel::Result<()> {
    let memory = PosixShm::create(name, SIZE)?.map()?;
    let head = memory.atomic_u64(HEAD)?;
    let taken = memory.atomic_u64(TAKEN)?;
    for word in words {
        let len = (size_of::<Node>() + word.len()).next_multiple_of(align_of::<Node>());
        let at = NODES + taken.fetch_add(len as u64, Ordering::Relaxed) as usize;
        // A full list is an error here: the offset is not within the mapping.
        memory.write_bytes(at + size_of::<Node>(), word.as_bytes())?;
        let mut newest = head.load(Ordering::Relaxed);
        loop {
            let node = Node { next: Offset::new(newest as usize), word_len: word.len() as u64 };
            memory.write(Offset::new(at), node)?;
            // The node first, then the head: whoever sees the head sees the node.
            match head.compare_exchange_weak(newest, at as u64, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(newer) => newest = newer,
            }
        }
    }
    Ok(())
}

/// Walks the list at two addresses, as two processes would.
fn show(name: &str) -> ginnel::Result<()> {
    let shm = PosixShm::open_read_only(name)?;
    let (here, there) = (shm.map_read_only()?, shm.map_read_only()?);
    println!("at {:p} and at {:p}", here.as_ptr(), there.as_ptr());
    // Once: others may push meanwhile.
    let head = here.load_u64(HEAD)?;
    let words = walk(&here, head)?;
    assert_eq!(words, walk(&there, head)?, "the same list at either address");
    words.iter().for_each(|word| println!("{word}"));
    Ok(())
}

fn walk(memory: &Mapping<impl Access>, head: u64) -> ginnel::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut next = Offset::<Node>::new(head as usize);
    // What other processes wrote is not to be trusted: a list bent into a circle must not keep us here for ever.
    while let (Some(at), true) = (next.get(), words.len() <= memory.len() / size_of::<Node>()) {
        let node = memory.read(next)?;
        let start = at + size_of::<Node>();
        let word = memory.read_vec(start..start.saturating_add(node.word_len as usize))?;
        words.push(String::from_utf8_lossy(&word).into_owned());
        next = node.next;
    }
    Ok(words)
}
