//! `msgget(2)`, `msgop(2)`, `msgctl(2)`.

use super::{Behind, Symbols, check, done, number, set_owner};
use crate::Result;
use crate::home::{Owner, QueueStatus, SysvMessages};

/// Runs `call` with a buffer for a type and `size` bytes of text. Short ones need no allocation.
fn with_buffer<T>(size: usize, call: impl FnOnce(&mut [u64]) -> T) -> T {
    let words = 1 + size.div_ceil(8);
    if words <= 33 { call(&mut [0; 33]) } else { call(&mut vec![0; words]) }
}

fn bytes(text: &[u64]) -> &[u8] {
    // SAFETY: words are made of bytes.
    unsafe { std::slice::from_raw_parts(text.as_ptr().cast(), text.len() * 8) }
}

impl<B: Behind> SysvMessages for Symbols<B> {
    const MESSAGE_BYTES_MAX: usize = B::MESSAGE_BYTES_MAX;

    fn msgget(&self, key: i32, flags: i32) -> Result<i32> {
        // SAFETY: numbers only.
        number(unsafe { libc::msgget(self.key(key), flags) })
    }

    fn msgsnd(&self, id: i32, mtype: i64, text: &[u8], flags: i32) -> Result<()> {
        with_buffer(text.len(), |buffer| {
            buffer[0] = mtype as u64;
            // SAFETY: the buffer has room for the type and the text; the call reads that much.
            done(unsafe {
                let to = buffer.as_mut_ptr().add(1).cast();
                std::ptr::copy_nonoverlapping(text.as_ptr(), to, text.len());
                libc::msgsnd(id, buffer.as_ptr().cast(), text.len(), flags)
            })
        })
    }

    fn msgrcv(&self, id: i32, text: &mut [u8], mtype: i64, flags: i32) -> Result<(i64, usize)> {
        with_buffer(text.len(), |buffer| {
            // SAFETY: the buffer has room for the type and `text.len()` bytes.
            let len = unsafe { libc::msgrcv(id, buffer.as_mut_ptr().cast(), text.len(), mtype, flags) };
            let len = check(len as i64)? as usize;
            text[..len].copy_from_slice(&bytes(&buffer[1..])[..len]);
            Ok((buffer[0] as i64, len))
        })
    }

    fn msg_status(&self, id: i32) -> Result<QueueStatus> {
        let ds = status(id)?;
        Ok(QueueStatus {
            perm: self.permissions(&ds.msg_perm),
            stime: ds.msg_stime,
            rtime: ds.msg_rtime,
            ctime: ds.msg_ctime,
            cbytes: ds.__msg_cbytes,
            qnum: ds.msg_qnum,
            qbytes: ds.msg_qbytes,
            lspid: ds.msg_lspid,
            lrpid: ds.msg_lrpid,
        })
    }

    fn msg_set(&self, id: i32, owner: Owner, qbytes: u64) -> Result<()> {
        // SAFETY: all zeros is a valid msqid_ds; the call reads it.
        unsafe {
            let mut ds: libc::msqid_ds = std::mem::zeroed();
            set_owner(&mut ds.msg_perm, owner);
            ds.msg_qbytes = qbytes;
            done(libc::msgctl(id, libc::IPC_SET, &mut ds))
        }
    }

    fn msg_remove(&self, id: i32) -> Result<()> {
        // SAFETY: IPC_RMID takes no pointer.
        done(unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) })
    }
}

fn status(id: i32) -> Result<libc::msqid_ds> {
    // SAFETY: all zeros is a valid msqid_ds; the call fills it.
    unsafe {
        let mut ds = std::mem::zeroed();
        done(libc::msgctl(id, libc::IPC_STAT, &mut ds))?;
        Ok(ds)
    }
}
