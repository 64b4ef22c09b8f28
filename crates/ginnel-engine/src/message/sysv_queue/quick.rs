//! The short way: a message that fits into one unit, while nobody is blocked and no message is on its way.
//!
//! The same words are changed as by `Store::enqueue` and `Store::remove`, by the same rules. What is different: each word
//! is found once and nothing is handed on in memory, which would cost more than the work itself.

use std::cell::Cell;
use std::sync::atomic::AtomicUsize;

use super::SysvQueue;
use super::order::{Ring, place_in};
use super::store::{
    AWAY, CHAINS, COUNT_SHIFT, COUNTS, EXCEPT_TYPE, HEAD_BYTES, HEAP, LAST, LEAST_SHIFT, PAGES, PLACES,
    RECEIVED, RING, SENT, SHAPE, SIZE, Store, TYPE, WHOLE_MAX, half, with_half,
};
use crate::heap::{Heap, Unit};
use crate::lock::{Change, Guard};
use crate::primitive::{Ordering, Thread};
use crate::segment::Segment;
use crate::wait::{Alone, Attempt, Patience};
use crate::{Errno, Result};

/// Where the last messages of a handle were, if they crossed from one CPU to another: the next are mostly in the same places.
#[derive(Debug, Default)]
pub(super) struct Trail {
    unit: AtomicUsize,
    ring: AtomicUsize,
    types: AtomicUsize,
}

impl Trail {
    #[inline(always)]
    fn approach(&self, segment: &Segment) {
        let unit = self.unit.load(Ordering::Relaxed);
        if unit != 0 {
            let (ring, types) = (self.ring.load(Ordering::Relaxed), self.types.load(Ordering::Relaxed));
            for line in [unit, unit + 64, ring + 8, types] {
                segment.prefetch(line);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn note(&self, unit: usize, ring: usize, types: usize) {
        self.unit.store(unit, Ordering::Relaxed);
        self.ring.store(ring, Ordering::Relaxed);
        self.types.store(types, Ordering::Relaxed);
    }
}

/// How many messages ahead the processor is told of.
const AHEAD: u32 = 3;

/// What a receiver got.
#[derive(Default)]
pub(super) struct Got {
    /// It had to wait first.
    has_waited: Cell<bool>,
    pub(super) kind: Cell<i64>,
    pub(super) len: Cell<usize>,
    /// The queue is empty since, and holds memory that it may give back.
    pub(super) has_drained: Cell<bool>,
}

impl SysvQueue {
    /// Sends a message if nothing stands in the way.
    #[inline(always)]
    pub(super) fn send_alone(&self, kind: i64, payload: &[u8], patience: Patience) -> Result<Alone> {
        let store = Store::of(&self.segment)?;
        self.place().run_alone(
            &self.segment,
            patience,
            Change::Less,
            || {
                store.approach();
                self.trail.approach(&self.segment);
            },
            |guard| {
                if !self.rights.hold(&self.segment) {
                    return Ok(Attempt::Otherwise);
                }
                store.send_quickly(guard, kind, payload, &self.trail)
            },
        )
    }

    /// Receives a message if nothing stands in the way. `kind` is not less than 0.
    #[inline(always)]
    pub(super) fn recv_alone(
        &self,
        out: &mut [u8],
        kind: i64,
        may_cut: bool,
        patience: Patience,
        got: &Got,
    ) -> Result<Alone> {
        let store = Store::of(&self.segment)?;
        store.foresee(kind);
        self.place().run_alone(
            &self.segment,
            patience,
            Change::More,
            || {
                store.approach();
                self.trail.approach(&self.segment);
            },
            |guard| {
                if !self.rights.hold(&self.segment) {
                    return Ok(Attempt::Otherwise);
                }
                let attempt = store.recv_quickly(guard, out, kind, may_cut, got, &self.trail);
                if matches!(attempt, Ok(Attempt::Waits)) {
                    got.has_waited.set(true);
                }
                attempt
            },
        )
    }
}

impl Store<'_> {
    /// The lines that the next operation needs first.
    #[inline(always)]
    pub(super) fn approach(&self) {
        let own = self.segment.offset_of(&self.line[0]);
        for line in [0, HEAP] {
            self.segment.prefetch(own + line);
        }
    }

    /// The beginning of a unit.
    #[inline(never)]
    fn fetch(&self, offset: usize) {
        self.segment.prefetch(offset);
        self.segment.prefetch(offset.wrapping_add(64));
    }

    /// Some messages ahead, they are on their way while those before them are received.
    #[inline(never)]
    fn look_ahead(&self, ring: Ring, first: u32) {
        if let Ok((word, upper)) = self.place_at(ring, first.wrapping_add(AHEAD)) {
            self.fetch(half(word.load(Ordering::Relaxed), upper) as usize * 64);
        }
    }

    #[inline(always)]
    fn send_quickly(
        &self,
        guard: &mut Guard<'_>,
        kind: i64,
        payload: &[u8],
        trail: &Trail,
    ) -> Result<Attempt> {
        let (counts, shape) = (self.hot(COUNTS), self.hot(SHAPE));
        if !self.fits(payload.len() as u64) {
            return Ok(Attempt::Waits);
        }
        let ring = self.ring()?;
        // The heap of types is to be told of a new one.
        let is_plain = self.hot(AWAY) == 0 && shape >> LEAST_SHIFT == 0;
        if !is_plain || counts >> COUNT_SHIFT >= self.blocks_max() || ring.is_full() {
            return Ok(Attempt::Otherwise);
        }
        let types = self.types()?;
        let (bucket, upper) = self.bucket_word(types, kind)?;
        let (head, _, _) = self.find_head(types, bucket, upper, kind)?;
        let bytes = HEAD_BYTES + payload.len();
        let (units, listed) = self.heap.at_hand(bytes)?;
        let found = Heap::unit_at_hand(listed);
        let unit = match found {
            Some((unit, _)) => unit,
            None => match self.heap.take_unit(guard, bytes) {
                Ok(unit) => {
                    // Mostly those before it in its page are next.
                    self.fetch(unit.offset().wrapping_sub(AHEAD as usize * bytes.next_multiple_of(64)));
                    unit
                }
                Err(Errno::NOBUFS) => return Ok(Attempt::Otherwise),
                Err(errno) => return Err(errno),
            },
        };
        let raw = unit.raw();
        let block = self.block(raw)?;
        let chain = if head == 0 { half(bucket.load(Ordering::Relaxed), upper) } else { 0 };
        let both = |value: u32| u64::from(value) | u64::from(value) << 32;
        let place = ring.next();
        block[TYPE].store(kind as u64, Ordering::Release);
        block[SIZE].store(payload.len() as u64, Ordering::Release);
        block[LAST].store(u64::from(raw), Ordering::Release);
        block[PLACES].store(both(place), Ordering::Release);
        block[CHAINS].store(both(chain), Ordering::Release);
        block[PAGES].store(0, Ordering::Release);
        self.segment.copy_in(unit.offset() + HEAD_BYTES, payload)?;
        let (word, half_of) = self.place_at(ring, place)?;
        word.store(with_half(word.load(Ordering::Relaxed), half_of, raw), Ordering::Release);
        if guard.crosses {
            trail.note(unit.offset(), self.segment.offset_of(word), self.segment.offset_of(bucket));
        }
        let next = place.wrapping_add(1);
        if place_in(ring, next) == 0 {
            self.store(EXCEPT_TYPE, 0)?;
        }
        let counted = counts.wrapping_add(1 << COUNT_SHIFT).wrapping_add(payload.len() as u64);
        let (mut of_type, mut of_type_upper) = (bucket, upper);
        if head != 0 {
            (of_type, of_type_upper) = (&self.block(head)?[LAST], 0);
            // What stands behind the last one has no meaning yet.
            let last = &self.block(half(of_type.load(Ordering::Relaxed), 0))?[SIZE];
            last.store(with_half(last.load(Ordering::Relaxed), 1, raw), Ordering::Release);
        }
        let named_before = of_type.load(Ordering::Relaxed);
        let named = with_half(named_before, of_type_upper, raw);
        let before = u64::from(ring.first()) | u64::from(place) << 32;
        let passed = u64::from(ring.first()) | u64::from(next) << 32;
        let (ring_word, counts_word) = (&self.line[RING / 8], &self.line[COUNTS / 8]);
        match found {
            Some((_, left)) => guard.change_all([
                (units, listed, left),
                (ring_word, before, passed),
                (counts_word, counts, counted),
                (of_type, named_before, named),
            ])?,
            None => guard.change_all([
                (ring_word, before, passed),
                (counts_word, counts, counted),
                (of_type, named_before, named),
            ])?,
        }
        self.stamp(guard, SENT, guard.process())?;
        guard.makes(Change::More);
        Ok(Attempt::Done)
    }

    #[inline(always)]
    fn recv_quickly(
        &self,
        guard: &mut Guard<'_>,
        out: &mut [u8],
        kind: i64,
        may_cut: bool,
        got: &Got,
        trail: &Trail,
    ) -> Result<Attempt> {
        let counts = self.hot(COUNTS);
        let (ring, types) = (self.ring()?, self.types()?);
        if counts >> COUNT_SHIFT == 0 {
            return Ok(Attempt::Waits);
        }
        if self.hot(AWAY) != 0 {
            return Ok(Attempt::Otherwise);
        }
        let mut first = 0;
        let mut of_type = kind;
        if kind == 0 {
            let (word, upper) = self.place_at(ring, ring.first())?;
            first = half(word.load(Ordering::Relaxed), upper);
            if first == 0 {
                return Ok(Attempt::Otherwise);
            }
            of_type = self.block(first)?[TYPE].load(Ordering::Relaxed) as i64;
        }
        let (bucket, upper) = self.bucket_word(types, of_type)?;
        let (unit, link, link_upper) = self.find_head(types, bucket, upper, of_type)?;
        if unit == 0 && kind != 0 {
            return Ok(Attempt::Waits);
        }
        // The first of all is the first of its type.
        if kind == 0 && unit != first {
            return Err(Errno::UCLEAN);
        }
        let block = self.block(unit)?;
        let size_word = block[SIZE].load(Ordering::Relaxed);
        let size = half(size_word, 0) as usize;
        if size > WHOLE_MAX {
            return Ok(Attempt::Otherwise);
        }
        if size > out.len() && !may_cut {
            return Err(Errno::TOOBIG);
        }
        let out = if size < out.len() { out.get_mut(..size).unwrap_or_default() } else { out };
        self.segment.copy_out(unit as usize * 64 + HEAD_BYTES, out)?;

        let left = counts.wrapping_sub(1 << COUNT_SHIFT).wrapping_sub(size as u64);
        let last = half(block[LAST].load(Ordering::Relaxed), 0);
        let chain = half(block[CHAINS].load(Ordering::Relaxed), types.parity());
        let mut follower = chain;
        if last != unit {
            follower = half(size_word, 1);
            // What a FIFO's other messages have there has no meaning.
            let next = self.block(follower)?;
            let chains = with_half(next[CHAINS].load(Ordering::Relaxed), types.parity(), chain);
            next[CHAINS].store(chains, Ordering::Release);
            let ends = with_half(next[LAST].load(Ordering::Relaxed), 0, last);
            next[LAST].store(ends, Ordering::Release);
        }
        let named_before = link.load(Ordering::Relaxed);
        let named = with_half(named_before, link_upper, follower);

        let place = half(block[PLACES].load(Ordering::Relaxed), ring.half());
        let (word, half_of) = self.place_at(ring, place)?;
        let places = word.load(Ordering::Relaxed);
        if half(places, half_of) != unit {
            return Err(Errno::UCLEAN);
        }
        if guard.crosses {
            trail.note(unit as usize * 64, self.segment.offset_of(word), self.segment.offset_of(bucket));
        }
        let (mut ring_word, mut ring_before, mut ring_value) = (word, places, with_half(places, half_of, 0));
        if place == ring.first() {
            let first = self.next_first(ring)?;
            if ring.next().wrapping_sub(first) > AHEAD {
                self.look_ahead(ring, first);
            }
            ring_word = &self.line[RING / 8];
            ring_before = ring_word.load(Ordering::Relaxed);
            ring_value = u64::from(first) | u64::from(ring.next()) << 32;
        }
        let freed = Unit::from_raw(unit);
        let counts_word = &self.line[COUNTS / 8];
        let (units, listed) = self.heap.at_hand(HEAD_BYTES + size)?;
        match Heap::with_unit_at_hand(listed, freed) {
            Some(at_hand) => guard.change_all([
                (counts_word, counts, left),
                (link, named_before, named),
                (ring_word, ring_before, ring_value),
                (units, listed, at_hand),
            ])?,
            None => {
                guard.change_all([
                    (counts_word, counts, left),
                    (link, named_before, named),
                    (ring_word, ring_before, ring_value),
                ])?;
                self.heap.free_unit(guard, freed, HEAD_BYTES + size)?;
            }
        }
        // What is there is the process's, what was waited for is the thread's: so the kernel has it.
        let process = if got.has_waited.get() { Thread::current().id() } else { guard.process() };
        self.stamp(guard, RECEIVED, process)?;
        guard.makes(Change::Less);
        got.kind.set(of_type);
        got.len.set(out.len());
        if left >> COUNT_SHIFT == 0 {
            got.has_drained
                .set(!self.is_small() || self.heap.has_spare_beside(units.load(Ordering::Relaxed))?);
        }
        Ok(Attempt::Done)
    }
}
