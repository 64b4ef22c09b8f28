//! What this process has mapped: `proc_pid_maps(5)`, `PROCMAP_QUERY` of Linux 6.11.
//!
//! A program may unmap or replace parts of what it has attached; so before anything is unmapped for it, the kernel is asked
//! what is there. One question costs a microsecond; the text that older kernels have costs as much for each area.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{CWD, Mode, OFlags};

use super::attached::FileId;

/// One range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Where in the file it begins.
    pub(super) offset: u64,
    pub(super) file: FileId,
}

/// `struct procmap_query` of `<linux/fs.h>`.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    area_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    device_major: u32,
    device_minor: u32,
    name_size: u32,
    build_id_size: u32,
    name_address: u64,
    build_id_address: u64,
}

/// `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: u64 = 3 << 30 | (size_of::<Query>() as u64) << 16 | (b'f' as u64) << 8 | 17;
/// The area that the address is in, or the next one.
const COVERING_OR_NEXT: u64 = 0x10;

impl Area {
    /// All that lie in a range, as a whole or in part, in their order.
    pub(super) fn within(start: usize, end: usize) -> Vec<Area> {
        Area::asked(start, end).unwrap_or_else(|| {
            Area::all().into_iter().filter(|area| area.end > start && area.start < end).collect()
        })
    }

    /// None: the kernel does not know the question.
    fn asked(start: usize, end: usize) -> Option<Vec<Area>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let maps = rustix::fs::openat(CWD, "/proc/self/maps", flags, Mode::empty()).ok()?;
        let mut areas = Vec::new();
        let mut from = start;
        while from < end {
            match Area::ask(maps.as_fd(), from) {
                Ok(Some(area)) if area.start < end && area.end > from => {
                    areas.push(area);
                    from = area.end;
                }
                Ok(_) => break,
                Err(()) => return None,
            }
        }
        Some(areas)
    }

    fn ask(maps: BorrowedFd<'_>, address: usize) -> Result<Option<Area>, ()> {
        let size = size_of::<Query>() as u64;
        let mut query = Query { size, flags: COVERING_OR_NEXT, address: address as u64, ..Query::default() };
        // SAFETY: the structure is valid, of the size that it says, and asks for neither name nor build id.
        let outcome = unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY as _, &raw mut query) };
        if outcome != 0 {
            let none = std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT);
            return if none { Ok(None) } else { Err(()) };
        }
        Ok(Some(Area {
            start: query.start as usize,
            end: query.end as usize,
            offset: query.offset,
            file: (rustix::fs::makedev(query.device_major, query.device_minor), query.inode),
        }))
    }

    /// All of the process.
    pub(super) fn all() -> Vec<Area> {
        std::fs::read_to_string("/proc/self/maps")
            .unwrap_or_default()
            .lines()
            .filter_map(Area::parse)
            .collect()
    }

    fn parse(line: &str) -> Option<Area> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (offset, device, inode) = (fields.nth(1)?, fields.next()?, fields.next()?);
        let (major, minor) = device.split_once(':')?;
        let hex = |digits: &str| u32::from_str_radix(digits, 16).ok();
        Some(Area {
            start: usize::from_str_radix(start, 16).ok()?,
            end: usize::from_str_radix(end, 16).ok()?,
            offset: u64::from_str_radix(offset, 16).ok()?,
            file: (rustix::fs::makedev(hex(major)?, hex(minor)?), inode.parse().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Area;

    #[test]
    fn the_question_and_the_text_say_the_same() {
        // Other tests map and unmap meanwhile: the program itself stays where it is.
        let code = Area::all as fn() -> Vec<Area> as usize;
        let text = Area::all().into_iter().find(|area| area.start <= code && code < area.end).unwrap();
        assert_eq!(Area::within(code, code + 1), [text]);
        assert!(text.file.1 > 0 && Area::within(1, 4096).is_empty());
        if let Some(asked) = Area::asked(text.start, text.end) {
            assert_eq!(asked, [text]);
        }
    }
}
