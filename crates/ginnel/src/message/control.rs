//! `recvmsg(2)` and `sendmsg(2)` with control data: descriptors, credentials, pidfds, time stamps (`cmsg(3)`).
//!
//! Not rustix's: its credentials cannot hold process 0, which the kernel gives for a sender of another PID namespace, and
//! it knows neither pidfds nor time stamps.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::unix_socket::Credentials;
use crate::wait::{Attempt, check};

/// The most descriptors that one message carries (`SCM_MAX_FD` of Linux).
pub const DESCRIPTORS_MAX: usize = 253;

const SCM_PIDFD: i32 = 0x04;

/// Room for all that the kernel can attach: 253 descriptors, credentials, a pidfd, a time stamp, a security label.
const CONTROL_WORDS: usize = 320;

/// What one `recvmsg` brought. Whatever the caller does not take is closed.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) len: usize,
    /// `MSG_TRUNC`: the payload was longer than the buffer.
    pub(super) payload_cut: bool,
    /// `MSG_CTRUNC`: control data is missing.
    pub(super) control_cut: bool,
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) credentials: Option<Credentials>,
    pub(super) process: Option<OwnedFd>,
    pub(super) has_timestamp: bool,
}

/// Receives once. Descriptors are close-on-exec from birth. With `extra` of `MSG_TRUNC`, `len` is the length as sent.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    extra: i32,
    attempt: Attempt,
) -> Result<Incoming, Errno> {
    let mut control = [0_u64; CONTROL_WORDS];
    let mut payload = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header = message_header(&mut payload);
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_CMSG_CLOEXEC | extra | no_wait(attempt);
    // SAFETY: the header's one part is `buffer`, writable for its length, and its control buffer `control`; both outlive
    // the call.
    let len = check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) } as i64)?;
    let mut incoming = Incoming {
        len: len as usize,
        payload_cut: header.msg_flags & libc::MSG_TRUNC != 0,
        control_cut: header.msg_flags & libc::MSG_CTRUNC != 0,
        ..Incoming::default()
    };
    // SAFETY: the kernel has just filled `control` and set msg_controllen to what of it holds whole control messages, which
    // are visited once each.
    unsafe { take_control(&header, &mut incoming) };
    Ok(incoming)
}

/// Takes over all that the control data holds; each descriptor in it becomes owned, so none can leak.
///
/// # Safety
/// `header` is as `recvmsg` left it, its control buffer alive, and not visited before.
unsafe fn take_control(header: &libc::msghdr, incoming: &mut Incoming) {
    // SAFETY: by the caller's word, CMSG_FIRSTHDR and CMSG_NXTHDR give null or a control message inside of the buffer, whose
    // cmsg_len counts its own header. A truncated one's length is that of what is there. Descriptors in SCM_RIGHTS and
    // SCM_PIDFD are new ones that the kernel made for this process, so owning them is right.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        // A pointer throughout: a reference would be to the header alone, and the data is behind it.
        while !message.is_null() {
            let data = libc::CMSG_DATA(message);
            // musl's field is a u32.
            #[allow(clippy::unnecessary_cast)]
            let len = (*message).cmsg_len as usize - data.byte_offset_from_unsigned(message);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    let raw = data.cast::<RawFd>();
                    incoming.descriptors.extend(
                        (0..len / size_of::<RawFd>())
                            .map(|index| OwnedFd::from_raw_fd(raw.add(index).read_unaligned())),
                    );
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if len >= size_of::<libc::ucred>() => {
                    incoming.credentials =
                        Some(Credentials::from_raw(data.cast::<libc::ucred>().read_unaligned()));
                }
                (libc::SOL_SOCKET, SCM_PIDFD) if len >= size_of::<RawFd>() => {
                    // Negative: an errno, for a process that is gone.
                    let raw = data.cast::<RawFd>().read_unaligned();
                    incoming.process = (raw >= 0).then(|| OwnedFd::from_raw_fd(raw));
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMP) => incoming.has_timestamp = true,
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
}

/// Sends once, with descriptors and, where given, credentials of the sender's choice.
pub(super) fn transmit(
    socket: BorrowedFd<'_>,
    payload: &[u8],
    descriptors: &[BorrowedFd<'_>],
    credentials: Option<Credentials>,
    attempt: Attempt,
) -> Result<usize, Errno> {
    let mut control = Control { words: [0; CONTROL_WORDS], used: 0 };
    if !descriptors.is_empty() {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        control.push(libc::SCM_RIGHTS, bytemuck::cast_slice(&raw));
    }
    if let Some(Credentials { pid, uid, gid }) = credentials {
        let raw = [pid.cast_unsigned(), uid, gid];
        control.push(libc::SCM_CREDENTIALS, bytemuck::cast_slice(&raw));
    }
    let mut part = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    let mut header = message_header(&mut part);
    if control.used > 0 {
        header.msg_control = control.words.as_mut_ptr().cast();
        header.msg_controllen = control.used as _;
    }
    let flags = libc::MSG_NOSIGNAL | no_wait(attempt);
    // SAFETY: the header's one part is `payload`, which sendmsg only reads, and its control data is well-formed; both
    // outlive the call.
    check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) } as i64)
        .map(|sent| sent as usize)
}

/// Control data under construction.
struct Control {
    words: [u64; CONTROL_WORDS],
    used: usize,
}

impl Control {
    /// Appends one control message of `SOL_SOCKET`.
    ///
    /// # Panics
    /// If it does not fit: the callers send at most [`DESCRIPTORS_MAX`] descriptors and one set of credentials.
    fn push(&mut self, kind: i32, data: &[u8]) {
        let len = data.len() as u32;
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
        let (space, whole_len) = unsafe { (libc::CMSG_SPACE(len) as usize, libc::CMSG_LEN(len)) };
        assert!(self.used + space <= size_of_val(&self.words), "control data outgrows its buffer");
        // SAFETY: the assertion leaves room for the header and the data at `used`, which is a multiple of the alignment, since
        // CMSG_SPACE is.
        unsafe {
            let header = self.words.as_mut_ptr().byte_add(self.used).cast::<libc::cmsghdr>();
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = whole_len as _;
            std::ptr::copy_nonoverlapping(data.as_ptr(), libc::CMSG_DATA(header), data.len());
        }
        self.used += space;
    }
}

fn message_header(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: all zeros is a valid msghdr: no name, no parts, no control data.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header
}

fn no_wait(attempt: Attempt) -> i32 {
    match attempt {
        Attempt::NonBlocking => libc::MSG_DONTWAIT,
        Attempt::Blocking => 0,
    }
}

/// Sets an option that is an int: `setsockopt(2)`, for those that rustix does not know.
pub(super) fn set_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> Result<(), Errno> {
    // SAFETY: the value is an int, and its size is given; the kernel only reads it.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    })
    .map(drop)
}
