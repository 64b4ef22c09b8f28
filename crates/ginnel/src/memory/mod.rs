//! Shared bytes: what one process writes, the others see.
//!
//! | mechanism | found by | lives until |
//! | --- | --- | --- |
//! | [`SysvSegment`] | a key or an id | it is removed and the last process has detached |
//! | [`PosixShm`] | a name | it is removed and the last process has unmapped and closed it |
//! | [`FileMapping`] | a path | the file does; its bytes are on disk |
//! | [`MemFd`] | a descriptor that is passed on | the last descriptor and the last mapping are gone |
//! | [`Anonymous`] | being forked | the last process that has it mapped is gone |
//!
//! All of them end in a [`Mapping`], which has the access; see there for what holds for memory that others write.
//!
//! ```
//! # ginnel_testkit::private();
//! use std::sync::atomic::Ordering;
//! use ginnel::memory::SysvSegment;
//!
//! let segment = SysvSegment::private(4096)?;
//! let ours = segment.attach()?;
//! let theirs = SysvSegment::from_id(segment.id()).attach_read_only()?; // in another process, as a rule
//!
//! ours.write_bytes(64, b"behind the wall")?;
//! ours.atomic_u32(0)?.store(1, Ordering::Release);
//! assert_eq!(theirs.load_u32(0)?, 1);
//! assert_eq!(theirs.read_vec(64..79)?, b"behind the wall");
//! # Ok::<(), ginnel::Error>(())
//! ```

mod backing;
mod copy;
mod fault;

pub mod anonymous;
pub mod file;
pub mod mapping;
pub mod memfd;
pub mod posix_shm;
pub mod sysv_segment;
pub mod view;

pub use anonymous::Anonymous;
pub use backing::Status;
pub use file::FileMapping;
pub(crate) use mapping::Witness;
pub use mapping::{Access, Advice, HugePages, Mapping, ReadOnly, ReadWrite};
pub use memfd::{MemFd, Seals};
pub use posix_shm::PosixShm;
pub use sysv_segment::SysvSegment;
pub use view::{Array, Offset};
