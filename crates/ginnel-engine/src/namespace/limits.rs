//! What a namespace's objects may hold: set when it is made, in its `info` file.

/// The limits of a namespace, under the kernel's names for its own. Memory is the file system's to limit.
///
/// ```
/// use ginnel_engine::namespace::Limits;
///
/// let limits = Limits::default();
/// assert_eq!((limits.msgmax, limits.msgmnb), (1 << 30, 64 << 20));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a System V message: 1 GiB (the kernel: 8 KiB).
    pub msgmax: u64,
    /// Bytes that a new System V queue holds at most: 64 MiB (the kernel: 16 KiB). Anybody may raise a queue's own.
    pub msgmnb: u64,
    /// Semaphores of a set: 32,000, as the kernel, and never more.
    pub semmsl: u64,
    /// Operations of one `semop`: 500, as the kernel.
    pub semopm: u64,
    /// A System V semaphore's highest value: 32,767, as the kernel, and never more.
    pub semvmx: u64,
    /// Bytes of a System V segment: 2^64 - 2^24 - 1, as the kernel.
    pub shmmax: u64,
    /// Messages that a POSIX queue may be made for: 65,536 (the kernel: 10 without a privilege, 65,536 with it).
    pub msg_max: u64,
    /// Bytes of a POSIX queue's message: 16 MiB (the kernel: 8 KiB without a privilege, 16 MiB with it).
    pub msgsize_max: u64,
    /// Messages that a POSIX queue is made for when nothing is said: 10, as the kernel.
    pub msg_default: u64,
    /// Bytes of a POSIX queue's message when nothing is said: 8 KiB, as the kernel.
    pub msgsize_default: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            msgmax: 1 << 30,
            msgmnb: 64 << 20,
            semmsl: 32_000,
            semopm: 500,
            semvmx: 32_767,
            shmmax: u64::MAX - (1 << 24),
            msg_max: 65_536,
            msgsize_max: 16 << 20,
            msg_default: 10,
            msgsize_default: 8 << 10,
        }
    }
}

impl Limits {
    pub(super) const WORDS: usize = 10;

    pub(super) fn words(&self) -> [u64; Limits::WORDS] {
        [
            self.msgmax,
            self.msgmnb,
            self.semmsl,
            self.semopm,
            self.semvmx,
            self.shmmax,
            self.msg_max,
            self.msgsize_max,
            self.msg_default,
            self.msgsize_default,
        ]
    }

    pub(super) fn from_words(words: &[u64]) -> Option<Limits> {
        let &[
            msgmax,
            msgmnb,
            semmsl,
            semopm,
            semvmx,
            shmmax,
            msg_max,
            msgsize_max,
            msg_default,
            msgsize_default,
        ] = words
        else {
            return None;
        };
        Some(Limits {
            msgmax,
            msgmnb,
            semmsl,
            semopm,
            semvmx,
            shmmax,
            msg_max,
            msgsize_max,
            msg_default,
            msgsize_default,
        })
    }

    /// Whether the layouts can hold them.
    pub(super) fn are_possible(&self) -> bool {
        let at_most = |value: u64, most: u64| (1..=most).contains(&value);
        at_most(self.msgmax, 1 << 30)
            && at_most(self.msgmnb, 1 << 40)
            && at_most(self.semmsl, 32_000)
            && at_most(self.semopm, 1 << 16)
            && at_most(self.semvmx, 32_767)
            && at_most(self.shmmax, u64::MAX)
            && at_most(self.msg_max, 1 << 24)
            && at_most(self.msgsize_max, 1 << 30)
            && at_most(self.msg_default, self.msg_max)
            && at_most(self.msgsize_default, self.msgsize_max)
    }
}
