//! Reading and writing shared memory, whichever kind the endpoint names.

use ginnel::Endpoint;
use ginnel::memory::{Access, FileMapping, Mapping, PosixShm, ReadOnly, ReadWrite};

use crate::failure::{Failure, Result};
use crate::home;
use crate::objects::{self, explain};

/// Which bytes of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    /// To the end if it is not said.
    pub(crate) len: Option<u64>,
}

impl Part {
    /// From the endpoint's own `#OFFSET+LENGTH` or from the options.
    pub(crate) fn of(endpoint: &Endpoint, offset: Option<u64>, len: Option<u64>) -> Result<Part> {
        match endpoint {
            Endpoint::File(_, Some(_)) if offset.is_some() || len.is_some() => {
                Err(Failure::usage(format!("{endpoint}: the part is in the endpoint already")))
            }
            Endpoint::File(_, Some(range)) => {
                Ok(Part { offset: range.offset, len: Some(range.len).filter(|len| *len > 0) })
            }
            _ => Ok(Part { offset: offset.unwrap_or(0), len }),
        }
    }
}

/// The endpoint of the object of which this one may be a part.
pub(crate) fn whole(endpoint: &Endpoint) -> Endpoint {
    match endpoint {
        Endpoint::File(path, Some(_)) => Endpoint::File(path.clone(), None),
        other => other.clone(),
    }
}

/// Writes at the part's offset; nothing if not all of it has room.
pub(crate) fn write(endpoint: &Endpoint, part: Part, bytes: &[u8]) -> Result<()> {
    let explained = |error| explain(endpoint, error);
    let mapping: Mapping<ReadWrite> = match endpoint {
        Endpoint::SysvSegment(name) => {
            objects::sysv_segment(*name).and_then(|segment| segment.attach()).map_err(explained)?
        }
        Endpoint::PosixShm(name) => {
            PosixShm::open_in(home::current(), name).and_then(|shm| shm.map()).map_err(explained)?
        }
        Endpoint::File(path, _) => FileMapping::open(path).map_err(explained)?.into_mapping(),
        _ => unreachable!("only memory is written"),
    };
    let room = part.len.unwrap_or(u64::MAX).min(size_of(&mapping).saturating_sub(part.offset));
    if bytes.len() as u64 > room {
        let (len, offset) = (bytes.len(), part.offset);
        let why =
            format!("{endpoint}: {len} bytes do not fit: there is room for {room} from offset {offset} on");
        return Err(Failure::failed(why));
    }
    mapping.write_bytes(part.offset as usize, bytes).map_err(explained)
}

/// Reads the part; where it has no end of its own, no more than `bytes_max`.
pub(crate) fn read(endpoint: &Endpoint, part: Part, bytes_max: u64) -> Result<Vec<u8>> {
    let explained = |error| explain(endpoint, error);
    let mapping: Mapping<ReadOnly> = match endpoint {
        Endpoint::SysvSegment(name) => {
            objects::sysv_segment(*name).and_then(|segment| segment.attach_read_only()).map_err(explained)?
        }
        Endpoint::PosixShm(name) => PosixShm::open_read_only_in(home::current(), name)
            .and_then(|shm| shm.map_read_only())
            .map_err(explained)?,
        Endpoint::File(path, _) => FileMapping::open_read_only(path).map_err(explained)?.into_mapping(),
        _ => unreachable!("only memory is read"),
    };
    let size = size_of(&mapping);
    let end = match part.len {
        Some(len) => part.offset.checked_add(len),
        None => Some(size.min(part.offset.saturating_add(bytes_max))),
    };
    match end.filter(|end| *end <= size && part.offset <= *end) {
        Some(end) => mapping.read_vec(part.offset as usize..end as usize).map_err(explained),
        None => Err(Failure::failed(format!("{endpoint}: it has {size} bytes, and no such part"))),
    }
}

fn size_of<A: Access>(mapping: &Mapping<A>) -> u64 {
    mapping.len() as u64
}
