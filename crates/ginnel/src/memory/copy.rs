//! Copies to and from memory that other processes may write meanwhile.
//!
//! # Why not `memcpy`
//! `ptr::copy_nonoverlapping` is an ordinary access, and an ordinary access that races with a write is undefined
//! behaviour: the compiler may read twice and trust that both reads agree. Here every access to the shared side is
//! either a relaxed atomic or inside an `asm!` block, of which the compiler knows nothing but that it may touch any
//! memory whose address has got out. A race then has one consequence only: the copy may hold some old and some new
//! bytes. That is for the caller to prevent, with a lock or a sequence count; it is never undefined behaviour.
//!
//! What the `asm!` blocks do is, for the language, a loop of relaxed atomic loads and stores of bytes. (Where two
//! processes, or two threads of one, access the same place in different widths at once, the language has no word for it.
//! LLVM, which compiles it, defines atomics byte by byte, and the processors do too: each aligned access is one.)
//!
//! # How fast
//! Up to 64 bytes: by words. From there on x86-64 copies 64 bytes a turn with SSE2, and from 1.5 KiB on by
//! `rep movsb`, which is what glibc's `memcpy` comes to as well. Elsewhere: 8 words a turn.
//!
//! An aligned value of 1, 2, 4 or 8 bytes is read and written in one piece.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

const WORD: usize = size_of::<u64>();
/// The bytes of one turn of the wide loop.
const TURN: usize = 8 * WORD;
#[cfg(all(target_arch = "x86_64", not(miri)))]
const REP_MIN: usize = 1536;

/// Copies `len` bytes out of shared memory.
///
/// # Safety
/// `from` is valid for reads of `len` bytes that are accessed by atomics and such copies only; `to` is valid for
/// writes of `len` bytes, the caller's own, and does not overlap with them.
pub(super) unsafe fn load(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise; each branch stays within `len` bytes of both.
    unsafe {
        if load_whole(from, to, len) {
            return;
        }
        let wide = wide_bytes(len);
        if wide > 0 {
            copy_wide(from, to, wide, load_turns);
        }
        load_words(from.add(wide), to.add(wide), len - wide);
    }
}

/// Copies `len` bytes into shared memory.
///
/// # Safety
/// As [`load`], with the sides exchanged; the shared side must be mapped writable.
pub(super) unsafe fn store(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: as in `load`.
    unsafe {
        if store_whole(from, to, len) {
            return;
        }
        let wide = wide_bytes(len);
        if wide > 0 {
            copy_wide(from, to, wide, store_turns);
        }
        store_words(from.add(wide), to.add(wide), len - wide);
    }
}

/// How many of `len` bytes the wide copy takes.
fn wide_bytes(len: usize) -> usize {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= REP_MIN {
        return len;
    }
    len - len % TURN
}

/// # Safety
/// Both sides are valid for `len` bytes, which [`wide_bytes`] gave.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn copy_wide(from: *const u8, to: *mut u8, len: usize, _: unsafe fn(*const u8, *mut u8, usize)) {
    if len >= REP_MIN {
        // SAFETY: copies `len` bytes upwards; the direction flag is clear by the ABI.
        unsafe {
            std::arch::asm!(
                "rep movsb",
                inout("rcx") len => _, inout("rsi") from => _, inout("rdi") to => _,
                options(nostack, preserves_flags),
            );
        }
        return;
    }
    // SAFETY: copies `len / TURN` (at least one) times TURN bytes; SSE2 is part of x86-64.
    unsafe {
        std::arch::asm!(
            "2:",
            "movups {a}, [{from}]",
            "movups {b}, [{from} + 16]",
            "movups {c}, [{from} + 32]",
            "movups {d}, [{from} + 48]",
            "movups [{to}], {a}",
            "movups [{to} + 16], {b}",
            "movups [{to} + 32], {c}",
            "movups [{to} + 48], {d}",
            "add {from}, 64",
            "add {to}, 64",
            "dec {turns}",
            "jnz 2b",
            a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
            from = inout(reg) from => _, to = inout(reg) to => _, turns = inout(reg) len / TURN => _,
            options(nostack),
        );
    }
}

/// # Safety
/// Both sides are valid for `len` bytes, which [`wide_bytes`] gave.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
unsafe fn copy_wide(from: *const u8, to: *mut u8, len: usize, turns: unsafe fn(*const u8, *mut u8, usize)) {
    // SAFETY: the caller's promise.
    unsafe { turns(from, to, len) }
}

/// # Safety
/// As [`load`]; `len` is a multiple of [`TURN`].
#[cfg_attr(all(target_arch = "x86_64", not(miri)), allow(dead_code))]
unsafe fn load_turns(mut from: *const u8, mut to: *mut u8, mut len: usize) {
    // SAFETY: the words of a turn are loaded only when they are aligned; all stays within `len` bytes of both.
    unsafe {
        if from.addr().is_multiple_of(WORD) {
            while len >= TURN {
                let words: [u64; 8] =
                    std::array::from_fn(|i| (*from.cast::<AtomicU64>().add(i)).load(Ordering::Relaxed));
                to.cast::<[u64; 8]>().write_unaligned(words);
                (from, to, len) = (from.add(TURN), to.add(TURN), len - TURN);
            }
        }
        load_words(from, to, len);
    }
}

/// # Safety
/// As [`store`]; `len` is a multiple of [`TURN`].
#[cfg_attr(all(target_arch = "x86_64", not(miri)), allow(dead_code))]
unsafe fn store_turns(mut from: *const u8, mut to: *mut u8, mut len: usize) {
    // SAFETY: as in `load_turns`.
    unsafe {
        if to.addr().is_multiple_of(WORD) {
            while len >= TURN {
                let words = from.cast::<[u64; 8]>().read_unaligned();
                for (i, word) in words.into_iter().enumerate() {
                    (*to.cast::<AtomicU64>().add(i)).store(word, Ordering::Relaxed);
                }
                (from, to, len) = (from.add(TURN), to.add(TURN), len - TURN);
            }
        }
        store_words(from, to, len);
    }
}

/// Loads an aligned value of a word's size or less in one piece: whether it was one.
///
/// # Safety
/// As [`load`].
unsafe fn load_whole(from: *const u8, to: *mut u8, len: usize) -> bool {
    if !from.addr().is_multiple_of(len.max(1)) {
        return false;
    }
    // SAFETY: as long and as aligned as each arm says. Relaxed loads of at most a word are allowed on read-only pages.
    unsafe {
        match len {
            1 => to.write((*from.cast::<AtomicU8>()).load(Ordering::Relaxed)),
            2 => to.cast::<u16>().write_unaligned((*from.cast::<AtomicU16>()).load(Ordering::Relaxed)),
            4 => to.cast::<u32>().write_unaligned((*from.cast::<AtomicU32>()).load(Ordering::Relaxed)),
            8 => to.cast::<u64>().write_unaligned((*from.cast::<AtomicU64>()).load(Ordering::Relaxed)),
            _ => return false,
        }
    }
    true
}

/// Stores an aligned value of a word's size or less in one piece: whether it was one.
///
/// # Safety
/// As [`store`].
unsafe fn store_whole(from: *const u8, to: *mut u8, len: usize) -> bool {
    if !to.addr().is_multiple_of(len.max(1)) {
        return false;
    }
    // SAFETY: as long and as aligned as each arm says.
    unsafe {
        match len {
            1 => (*to.cast::<AtomicU8>()).store(from.read(), Ordering::Relaxed),
            2 => (*to.cast::<AtomicU16>()).store(from.cast::<u16>().read_unaligned(), Ordering::Relaxed),
            4 => (*to.cast::<AtomicU32>()).store(from.cast::<u32>().read_unaligned(), Ordering::Relaxed),
            8 => (*to.cast::<AtomicU64>()).store(from.cast::<u64>().read_unaligned(), Ordering::Relaxed),
            _ => return false,
        }
    }
    true
}

/// # Safety
/// As [`load`].
unsafe fn load_words(mut from: *const u8, mut to: *mut u8, mut len: usize) {
    // SAFETY: words are loaded only where they are aligned; all stays within `len` bytes of both.
    unsafe {
        while len > 0 {
            if len >= WORD && from.addr().is_multiple_of(WORD) {
                let word = (*from.cast::<AtomicU64>()).load(Ordering::Relaxed);
                to.cast::<u64>().write_unaligned(word);
                (from, to, len) = (from.add(WORD), to.add(WORD), len - WORD);
            } else {
                to.write((*from.cast::<AtomicU8>()).load(Ordering::Relaxed));
                (from, to, len) = (from.add(1), to.add(1), len - 1);
            }
        }
    }
}

/// # Safety
/// As [`store`].
unsafe fn store_words(mut from: *const u8, mut to: *mut u8, mut len: usize) {
    // SAFETY: as in `load_words`.
    unsafe {
        while len > 0 {
            if len >= WORD && to.addr().is_multiple_of(WORD) {
                let word = from.cast::<u64>().read_unaligned();
                (*to.cast::<AtomicU64>()).store(word, Ordering::Relaxed);
                (from, to, len) = (from.add(WORD), to.add(WORD), len - WORD);
            } else {
                (*to.cast::<AtomicU8>()).store(from.read(), Ordering::Relaxed);
                (from, to, len) = (from.add(1), to.add(1), len - 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Copy = unsafe fn(*const u8, *mut u8, usize);

    /// A turn's routine takes whole turns only.
    const TURNS: [Copy; 2] = [load_turns, store_turns];

    #[test]
    fn every_length_and_alignment_is_copied_and_nothing_else() {
        let lengths = (0..300).chain([1023, 1024, 1025, 1535, 1536, 1537, 4096, 9999]);
        for len in lengths {
            for copy in [load, store, load_words, store_words].into_iter().chain(TURNS) {
                if TURNS.iter().any(|turns| std::ptr::fn_addr_eq(*turns, copy)) && len % TURN != 0 {
                    continue;
                }
                for (skip_from, skip_to) in [(0, 0), (1, 0), (0, 1), (3, 8), (8, 5), (2, 4)] {
                    let from: Vec<u8> = (0..len + skip_from).map(|i| (i * 7 + 1) as u8).collect();
                    let mut to = vec![0xee; len + skip_to + 1];
                    // SAFETY: both are as long as that, and nobody else's.
                    unsafe { copy(from.as_ptr().add(skip_from), to.as_mut_ptr().add(skip_to), len) };
                    assert_eq!(to[skip_to..skip_to + len], from[skip_from..], "{len} {skip_from} {skip_to}");
                    assert!(to[..skip_to].iter().chain(to.last()).all(|byte| *byte == 0xee), "{len}");
                }
            }
        }
    }
}
