#![allow(unsafe_code)]
//! The open file table of a set of processes: which of their descriptors share one open file description, by
//! `kcmp(2)` with `KCMP_FILE`.
//!
//! The kernel keeps no list of open file descriptions that a program can read, and `/proc` does not name them: two
//! descriptors of one file look alike there whether they share an offset or not. `kcmp` compares two descriptors, and
//! says which description comes first in an order of its own (stable until the next boot). So each descriptor finds
//! its description by binary search among those already found: n log n calls. Only descriptors of one object can share
//! a description, so only those are compared.
//!
//! A process that runs meanwhile may close what was read: such a descriptor is left out. For stopped processes the
//! table is exact.

use crate::descriptors::{Access, Descriptor, DescriptorTable, Kind, ObjectId};
use crate::{Error, Result};
use serde::{Serialize, Serializer};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::{fmt, io};

/// One open file description, with the descriptors that refer to it.
///
/// ```
/// use ginnel_inspect::{descriptors::DescriptorTable, open_files::{Reference, open_files}};
/// use std::os::fd::AsRawFd;
///
/// let pid = std::process::id() as i32;
/// let (reader, _writer) = std::io::pipe()?;
/// let again = reader.try_clone()?;
///
/// let files = open_files(&[DescriptorTable::read(pid)?], &[])?;
/// let file = files.iter().find(|file| file.references.contains(&Reference { pid, fd: reader.as_raw_fd() })).unwrap();
/// assert_eq!(file.references.len(), 2);
/// assert!(file.references.contains(&Reference { pid, fd: again.as_raw_fd() }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenFile {
    /// Its letter.
    pub id: FileId,
    /// What is open: the text of the link in `/proc`, or a clearer name that the caller gave it.
    pub object: String,
    /// What sort of object it is.
    pub kind: Kind,
    /// How it was opened.
    pub access: Access,
    /// The file offset in bytes that all its descriptors share; 0 where the object has none.
    pub offset: u64,
    /// The object's device and inode numbers.
    #[serde(flatten)]
    pub object_id: ObjectId,
    /// The descriptors of the observed processes that refer to it. Their number is its reference count there.
    pub references: Vec<Reference>,
    /// Whether one of the outside processes that [`open_files`] was given refers to it too.
    pub outside: bool,
}

/// A descriptor of a process.
///
/// ```
/// use ginnel_inspect::open_files::{Reference, is_same_open_file};
/// use std::os::fd::AsRawFd;
///
/// let own = |file: &dyn AsRawFd| Reference { pid: std::process::id() as i32, fd: file.as_raw_fd() };
/// let (reader, writer) = std::io::pipe()?;
/// let again = reader.try_clone()?;
///
/// assert!(is_same_open_file(own(&reader), own(&again))?);
/// assert!(!is_same_open_file(own(&reader), own(&writer))?);
/// assert_eq!(Reference { pid: 4711, fd: 3 }.to_string(), "4711:3");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Reference {
    /// The process.
    pub pid: i32,
    /// The descriptor's number.
    pub fd: i32,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.pid, self.fd)
    }
}

/// The name of an open file description in a table: `A` to `Z`, then `AA`. The kernel has no name for it.
///
/// ```
/// use ginnel_inspect::{descriptors::DescriptorTable, open_files::{FileId, open_files}};
///
/// let _pipe = std::io::pipe()?;
/// let files = open_files(&[DescriptorTable::read(std::process::id() as i32)?], &[])?;
/// assert_eq!(files[0].id.to_string(), "A");
/// assert_eq!(files[1].id, FileId(1));
/// assert_eq!([25, 26, 702].map(|number| FileId(number).to_string()), ["Z", "AA", "AAA"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub usize);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut rest, mut letters) = (self.0 + 1, Vec::new());
        while rest > 0 {
            letters.push(char::from(b'A' + ((rest - 1) % 26) as u8));
            rest = (rest - 1) / 26;
        }
        f.pad(&letters.iter().rev().collect::<String>())
    }
}

impl Serialize for FileId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The open file table of the processes that `tables` are of, in the order in which their descriptors come.
///
/// `outside` are the tables of other processes. What they share is marked; what only they have is not in the result.
///
/// # Errors
/// - `EPERM`: a process is another user's, or may not be dumped, and the caller lacks `CAP_SYS_PTRACE`.
/// - `ENOSYS`: the kernel was built without `CONFIG_KCMP`.
pub fn open_files(tables: &[DescriptorTable], outside: &[DescriptorTable]) -> Result<Vec<OpenFile>> {
    let mut found: BTreeMap<ObjectId, Vec<Description<'_>>> = BTreeMap::new();
    for (rank, (reference, descriptor)) in entries(tables).enumerate() {
        let same_object = found.entry(descriptor.object).or_default();
        match search(same_object, reference)? {
            Place::At(index) => same_object[index].references.push(reference),
            Place::Before(index) => {
                let references = vec![reference];
                same_object.insert(index, Description { rank, descriptor, references, outside: false });
            }
            Place::Gone => {}
        }
    }
    for (reference, descriptor) in entries(outside) {
        let Some(same_object) = found.get_mut(&descriptor.object) else { continue };
        if let Place::At(index) = search(same_object, reference)? {
            same_object[index].outside = true;
        }
    }
    let mut descriptions: Vec<_> = found.into_values().flatten().collect();
    descriptions.sort_by_key(|description| description.rank);
    Ok(descriptions.into_iter().enumerate().map(|(number, one)| one.named(FileId(number))).collect())
}

/// Whether two descriptors refer to one open file description.
///
/// # Errors
/// - `EBADF`, `ESRCH`: one of the descriptors, or its process, is not there.
/// - `EPERM`, `ENOSYS`: as for [`open_files`].
pub fn is_same_open_file(one: Reference, other: Reference) -> Result<bool> {
    Ok(compare(one, other)? == Ordering::Equal)
}

struct Description<'a> {
    /// How many descriptors were looked at before its first.
    rank: usize,
    descriptor: &'a Descriptor,
    references: Vec<Reference>,
    outside: bool,
}

impl Description<'_> {
    fn named(self, id: FileId) -> OpenFile {
        let Descriptor { target, kind, access, offset, object, .. } = self.descriptor.clone();
        let (references, outside) = (self.references, self.outside);
        OpenFile { id, object: target, kind, access, offset, object_id: object, references, outside }
    }
}

/// Where a descriptor's description is, or belongs, among those of the same object.
enum Place {
    At(usize),
    Before(usize),
    /// The descriptor has closed.
    Gone,
}

fn entries(tables: &[DescriptorTable]) -> impl Iterator<Item = (Reference, &Descriptor)> {
    tables.iter().flat_map(|table| {
        table.descriptors.iter().map(|(&fd, descriptor)| (Reference { pid: table.pid, fd }, descriptor))
    })
}

/// Binary search for the description of `wanted`. `descriptions` are in kcmp's order.
fn search(descriptions: &mut Vec<Description<'_>>, wanted: Reference) -> Result<Place> {
    if descriptions.is_empty() && is_closed(wanted) {
        return Ok(Place::Gone);
    }
    let (mut low, mut high) = (0, descriptions.len());
    while low < high {
        let middle = low + (high - low) / 2;
        // The first reference stands for the description: it is there, as an empty description is removed below.
        match compare(wanted, descriptions[middle].references[0]) {
            Ok(Ordering::Less) => high = middle,
            Ok(Ordering::Greater) => low = middle + 1,
            Ok(Ordering::Equal) => return Ok(Place::At(middle)),
            Err(error) if is_gone(&error) => {
                if is_closed(wanted) {
                    return Ok(Place::Gone);
                }
                // So the other one has closed. Without it the order of the rest still holds: start again.
                descriptions[middle].references.remove(0);
                if descriptions[middle].references.is_empty() {
                    descriptions.remove(middle);
                }
                (low, high) = (0, descriptions.len());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Place::Before(low))
}

fn is_closed(reference: Reference) -> bool {
    compare(reference, reference).is_err_and(|error| is_gone(&error))
}

fn is_gone(error: &Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADF | libc::ESRCH))
}

/// The kernel's order of two open file descriptions: `kcmp(2)`.
fn compare(one: Reference, other: Reference) -> Result<Ordering> {
    const KCMP_FILE: libc::c_int = 0;
    // The kernel takes the descriptors as unsigned long: all the register counts, not its lower half only.
    let (first, second) = (one.fd as libc::c_ulong, other.fd as libc::c_ulong);
    // SAFETY: kcmp takes numbers only, and changes nothing.
    let answer = unsafe { libc::syscall(libc::SYS_kcmp, one.pid, other.pid, KCMP_FILE, first, second) };
    let object = || format!("{one} and {other}");
    match answer {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        // The man page has 3, "not equal, but no order"; Linux orders all files.
        3.. => Err(Error::new("kcmp", object(), io::Error::from_raw_os_error(libc::EOPNOTSUPP))),
        _ => Err(refused(Error::last("kcmp", object()))),
    }
}

fn refused(error: Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            error.with_hint("it needs the right to trace both: in a container, CAP_SYS_PTRACE")
        }
        Some(libc::ENOSYS) => error.with_hint("this kernel was built without CONFIG_KCMP"),
        _ => error,
    }
}
