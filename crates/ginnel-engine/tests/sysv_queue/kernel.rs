//! The kernel's own queue: the oracle.
#![allow(unsafe_code)]

use ginnel_engine::{Errno, Result};

pub(crate) struct KernelQueue(i32);

/// In the test's own namespaces: as large as is needed.
pub(crate) fn raise_limits() {
    for (name, value) in [("msgmax", "1000000"), ("msgmnb", "10000000")] {
        std::fs::write(format!("/proc/sys/kernel/{name}"), value).unwrap();
    }
}

fn check(outcome: isize) -> Result<usize> {
    usize::try_from(outcome)
        .map_err(|_| Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)))
}

impl KernelQueue {
    pub(crate) fn create() -> KernelQueue {
        // SAFETY: the call takes no pointers.
        let id = unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600 | libc::IPC_CREAT) };
        assert!(id >= 0);
        KernelQueue(id)
    }

    pub(crate) fn send(&self, kind: i64, payload: &[u8], flags: i32) -> Result<()> {
        let message = [&kind.to_ne_bytes(), payload].concat();
        // SAFETY: the type and as many bytes as said.
        check(unsafe { libc::msgsnd(self.0, message.as_ptr().cast(), payload.len(), flags) } as isize)
            .map(drop)
    }

    pub(crate) fn recv(&self, out: &mut [u8], kind: i64, flags: i32) -> Result<(i64, usize)> {
        let mut message = vec![0; 8 + out.len()];
        // SAFETY: room for the type and as many bytes as said.
        let len =
            check(unsafe { libc::msgrcv(self.0, message.as_mut_ptr().cast(), out.len(), kind, flags) })?;
        let kind = i64::from_ne_bytes(std::array::from_fn(|index| message[index]));
        out[..len].copy_from_slice(&message[8..8 + len]);
        Ok((kind, len))
    }

    fn status(&self) -> libc::msqid_ds {
        // SAFETY: all zeroes is one; the call writes into it.
        unsafe {
            let mut status: libc::msqid_ds = std::mem::zeroed();
            assert_eq!(libc::msgctl(self.0, libc::IPC_STAT, &mut status), 0);
            status
        }
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        let status = self.status();
        (status.msg_qnum, status.__msg_cbytes)
    }

    pub(crate) fn set_mode(&self, mode: u16) {
        let mut status = self.status();
        status.msg_perm.mode = mode;
        // SAFETY: the call reads the status.
        assert_eq!(unsafe { libc::msgctl(self.0, libc::IPC_SET, &mut status) }, 0);
    }

    pub(crate) fn set_bytes_max(&self, bytes: u64) {
        let mut status = self.status();
        status.msg_qbytes = bytes;
        // SAFETY: the call reads the status.
        assert_eq!(unsafe { libc::msgctl(self.0, libc::IPC_SET, &mut status) }, 0);
    }
}

impl Drop for KernelQueue {
    fn drop(&mut self) {
        // SAFETY: the call takes no pointers that it uses.
        unsafe { libc::msgctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}
