//! Being blocked: a slot in the list until somebody has done the operation, or its owner gives up.

use std::time::{Duration, Instant};

use super::slots::{
    DIRTY, ENTRY, ENTRY_BEFORE, EPOCH, FIRST_WORD, LIFE, Link, PREVIOUS, PROCESS, SEEN, SERVED, SLEEPING,
    SLOT, SLOT_FREE, STATE, TAIL, UNWATCHED,
};
use super::{GRACE, Object, Waiters, Words};
use crate::lock::{self, Guard};
use crate::primitive::{
    AtomicU32, AtomicU64, OWNER_DIED, Ordering, Thread, WAITERS, futex_wait_any, futex_wait_any_heeding,
    futex_wake,
};
use crate::{Errno, Result};

/// A slot in the list that belongs to the calling thread. Dropped without having been given up, it is left as the dead
/// leave theirs.
struct Seat<'w, 'a, O: Object> {
    waiters: &'w Waiters<'a, O>,
    slot: usize,
    thread: Thread,
    life: &'a AtomicU32,
    state: &'a AtomicU64,
    linked: Option<Link<'a>>,
}

/// How many stakes a sleeper listens to at most: those beyond are asked for from time to time.
const LIVES_MAX: usize = 24;
/// How long before asking for the end of processes and stakes that nothing would tell: at first, and at most.
const ASK_SOON: Duration = Duration::from_millis(1);
const ASK_LATE: Duration = Duration::from_millis(100);

/// What a sleeper has seen under the lock and goes to sleep on.
struct View<'a> {
    epoch: u64,
    /// The lives of the stakes before it and of the sleeper before those.
    lives: [Option<(&'a AtomicU32, u32)>; LIVES_MAX],
    /// Whether there are ends that nothing would tell.
    must_ask: bool,
}

impl<'a, O: Object> Waiters<'a, O> {
    /// Blocks: the operation is in the list, and its result comes by somebody else's hand.
    #[cold]
    pub(super) fn block(
        &self,
        guard: Guard<'a>,
        thread: Thread,
        request: &Words,
        deadline: Option<Instant>,
    ) -> Result<Words> {
        let mut guard = guard;
        let mut seat = match self.take_seat(&mut guard, thread, request) {
            Ok(seat) => seat,
            Err(errno) => {
                self.leave(guard);
                return Err(errno);
            }
        };
        guard.checkpoint();
        let mut ask = ASK_SOON;
        let is_ended_by = |ran: lock::Handlers| ran.without_restart || (ran.any && O::NEVER_RESTARTED);
        // What came before it was blocked interrupts nothing.
        lock::interrupted_by();
        loop {
            let view = seat.view(&guard);
            self.leave(guard);
            let woken = seat.sleep(&view?, deadline, ask);
            ask = (ask * 2).min(ASK_LATE);
            if !seat.linked.as_ref().is_some_and(Link::is_own) {
                seat.linked = None;
                std::mem::forget(seat); // The parent's.
                return Err(Errno::INTR);
            }
            let mut interrupted = false;
            // Without the lock in time, it ends for the reason for which it came back.
            guard = seat.come_back(deadline, woken.is_err(), &mut interrupted).map_err(|errno| {
                if errno == Errno::TIMEDOUT { woken.err().unwrap_or(errno) } else { errno }
            })?;
            match guard.get(seat.slot + STATE)? {
                SLEEPING => {
                    // A handler that ran while it slept for the lock ends the operation too.
                    let errno = match woken {
                        Err(errno) => errno,
                        Ok(()) if interrupted || is_ended_by(lock::interrupted_by()) => Errno::INTR,
                        Ok(()) => continue,
                    };
                    let words = self.words(&guard, seat.slot)?;
                    self.object.abandon(&mut guard, &words)?;
                    self.unlink(&mut guard, seat.slot)?;
                    self.set(&mut guard, DIRTY, 1)?;
                    seat.give_up(&mut guard);
                    let _ = self.serve(&mut guard);
                    self.leave(guard);
                    return Err(errno);
                }
                state if state & 0xff == SERVED => {
                    let mut words = self.words(&guard, seat.slot)?;
                    let errno = (state >> 8) as i32;
                    if errno == 0 {
                        if self.object.is_to_be_fetched(&words) {
                            // Its slot stays as it is: nobody else ends it while this thread lives.
                            self.leave(guard);
                            self.object.fetch(&words)?;
                            guard = seat.come_back(deadline, deadline.is_some(), &mut interrupted)?;
                        }
                        self.object.collect(&mut guard, &mut words)?;
                    } else {
                        self.object.abandon(&mut guard, &words)?;
                    }
                    self.unlink(&mut guard, seat.slot)?;
                    seat.give_up(&mut guard);
                    self.leave(guard);
                    return if errno == 0 { Ok(words) } else { Err(Errno::from_raw_os_error(errno & 0xfff)) };
                }
                _ => return Err(Errno::UCLEAN),
            }
        }
    }

    fn take_seat<'w>(
        &'w self,
        guard: &mut Guard<'a>,
        thread: Thread,
        request: &Words,
    ) -> Result<Seat<'w, 'a, O>> {
        let index = self.index_for_next(guard)?;
        let slot = self.slot(index);
        let mut words = *request;
        self.object.enlist(guard, slot + SLOT, &mut words)?;
        let (life, linked) = self.fill(guard, slot, thread, &words)?;
        // Not touched yet: it sees the list as it will be with it.
        let epoch = self.get(guard, EPOCH)? & u64::from(u32::MAX);
        let process = u64::from(thread.process()) | epoch << 32;
        self.segment.word64(slot + PROCESS)?.store(process, Ordering::Release);
        let state = self.segment.word64(slot + STATE)?;
        let seat = Seat { waiters: self, slot, thread, life, state, linked: Some(linked) };
        self.append(guard, index, SLEEPING)?;
        Ok(seat)
    }

    /// Writes into a free slot what is to stand there before it is in the list.
    pub(super) fn fill(
        &self,
        guard: &Guard<'_>,
        slot: usize,
        thread: Thread,
        words: &Words,
    ) -> Result<(&'a AtomicU32, Link<'a>)> {
        self.fill_words(guard, slot, thread, words)?;
        self.bring_to_life(slot, thread)
    }

    /// Writes what a free slot says; nothing would tell of the thread's death.
    pub(super) fn fill_words(
        &self,
        guard: &Guard<'_>,
        slot: usize,
        thread: Thread,
        words: &Words,
    ) -> Result<()> {
        if guard.get(slot + STATE)? != SLOT_FREE {
            return Err(Errno::UCLEAN);
        }
        let word = |field: usize| self.segment.word64(slot + field);
        for (index, value) in words.iter().enumerate() {
            word(FIRST_WORD + 8 * index)?.store(*value, Ordering::Release);
        }
        word(PROCESS)?.store(u64::from(thread.process()), Ordering::Release);
        // A mark that the last one to have it has left.
        self.segment.word32(slot + LIFE)?.store(0, Ordering::Release);
        Ok(())
    }

    /// From here on the kernel marks the slot when the thread dies.
    pub(super) fn bring_to_life(&self, slot: usize, thread: Thread) -> Result<(&'a AtomicU32, Link<'a>)> {
        let life = self.segment.word32(slot + LIFE)?;
        life.store(thread.id() | WAITERS, Ordering::Release);
        // W3.
        let (before, entry) = (self.segment.word64(slot + ENTRY_BEFORE)?, self.segment.word64(slot + ENTRY)?);
        Ok((life, Link::new(self.segment, thread.link(life, before, entry)?)))
    }
}

impl<'a, O: Object> Seat<'_, 'a, O> {
    fn view(&self, guard: &Guard<'_>) -> Result<View<'a>> {
        let waiters = self.waiters;
        let mut lives = [None; LIVES_MAX];
        let mut must_ask = waiters.get(guard, UNWATCHED)? != 0;
        let (mut at, mut count) = (self.slot, 0);
        loop {
            let before = match guard.get(at + PREVIOUS)? {
                0 => waiters.get(guard, TAIL)?,
                link => link,
            };
            at = waiters.checked_slot(before)?;
            if at == self.slot {
                break;
            }
            let Some(place) = lives.get_mut(count) else {
                must_ask = true;
                break;
            };
            let life = waiters.segment.word32(at + LIFE)?;
            // One who died since this holder entered is one that it has to bury: not to be slept on.
            *place = Some((life, life.load(Ordering::SeqCst) & !OWNER_DIED));
            count += 1;
            if matches!(guard.get(at + STATE)? & 0xff, SLEEPING | SERVED) {
                break;
            }
        }
        let epoch = waiters.get(guard, EPOCH)?;
        waiters.segment.word32(self.slot + SEEN)?.store(epoch as u32, Ordering::SeqCst);
        Ok(View { epoch, lives, must_ask })
    }

    /// Sleeps until there may be something to do under the lock.
    fn sleep(&self, view: &View<'a>, deadline: Option<Instant>, ask: Duration) -> Result<()> {
        let waiters = self.waiters;
        let bell = waiters.bell()?;
        let state = waiters.low_half(self.slot + STATE)?;
        let epoch_word = waiters.segment.word64(waiters.base + EPOCH)?;
        let epoch = waiters.low_half(waiters.base + EPOCH)?;
        let look = view.must_ask.then(|| Instant::now() + ask);
        let limit = match (deadline, look) {
            (Some(deadline), Some(look)) => Some(deadline.min(look)),
            (deadline, look) => deadline.or(look),
        };
        let mut words = [(bell, 0); LIVES_MAX + 3];
        loop {
            let value = bell.load(Ordering::SeqCst);
            let mut lives = view.lives.iter().flatten();
            let unchanged = self.state.load(Ordering::SeqCst) == SLEEPING
                && lives.all(|(life, value)| life.load(Ordering::SeqCst) == *value)
                && epoch_word.load(Ordering::SeqCst) == view.epoch
                && !waiters.is_touched(self.slot)?;
            if !unchanged || value & OWNER_DIED != 0 {
                return Ok(());
            }
            // In this order: see the head of `wait`.
            words[0] = (state, SLEEPING as u32);
            words[1] = (bell, value);
            let mut count = 2;
            for life in view.lives.iter().flatten() {
                words[count] = *life;
                count += 1;
            }
            words[count] = (epoch, view.epoch as u32);
            // Mostly the lock has been taken or given back between the look and the sleep.
            let (slept, has_handled) = if O::NEVER_RESTARTED {
                futex_wait_any_heeding(&words[..=count], limit)
            } else {
                (futex_wait_any(&words[..=count], limit), false)
            };
            let is_over = |limit: Option<Instant>| limit.is_some_and(|limit| Instant::now() >= limit);
            match slept {
                _ if has_handled => return Err(Errno::INTR),
                Err(Errno::AGAIN) if !is_over(limit) => {}
                Err(Errno::AGAIN | Errno::TIMEDOUT) if is_over(deadline) => return Err(Errno::TIMEDOUT),
                Err(Errno::AGAIN | Errno::TIMEDOUT) => return Ok(()),
                slept => return slept,
            }
        }
    }

    /// Takes the lock again. Without the time for it, or to end the sleep, only for a moment longer than allowed.
    fn come_back(
        &self,
        deadline: Option<Instant>,
        leaving: bool,
        interrupted: &mut bool,
    ) -> Result<Guard<'a>> {
        let limit = if leaving {
            Some(Instant::now() + GRACE)
        } else {
            deadline.and_then(|deadline| deadline.checked_add(GRACE))
        };
        loop {
            match self.waiters.enter(limit) {
                Err(Errno::INTR) if limit.is_some() => *interrupted = true,
                outcome => return outcome,
            }
        }
    }

    /// What was done with the slot counts; it is somebody else's from here on.
    fn give_up(&mut self, guard: &mut Guard<'_>) {
        guard.checkpoint();
        // W3. The lock is still held: nobody has the slot yet.
        self.life.store(0, Ordering::Release);
        self.linked = None;
    }
}

impl<O: Object> Drop for Seat<'_, '_, O> {
    fn drop(&mut self) {
        if self.linked.is_some() {
            let (own, dead) = (self.thread.id() | WAITERS, WAITERS | OWNER_DIED);
            let left = self.life.compare_exchange(own, dead, Ordering::SeqCst, Ordering::SeqCst);
            self.linked = None;
            if left.is_ok() {
                futex_wake(self.life, 1);
                self.waiters.ring_bell();
            }
        }
    }
}
