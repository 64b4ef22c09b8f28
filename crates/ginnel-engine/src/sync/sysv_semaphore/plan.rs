//! Changes of more words than the journal has room for: written down first, committed in one word, then carried out.
//!
//! Carrying out a plan twice is as carrying it out once: it says what words are to be, not how they change. It is done
//! before anything else is, so nothing comes between. Its stores are not in the journal, and precede the transaction that
//! ends the plan.

use super::operate::word;
use super::serve::Call;
use super::{
    OPERATIONS_MAX, PLAN, PLAN_FORGET, PLAN_FORGET_ALL, PLAN_LIST, PLAN_NONE, PLAN_TABLE, PLAN_VALUES,
    PLAN_WHO, VALUE_MAX, VALUES, list_of,
};
use crate::lock::Guard;
use crate::primitive::Ordering;
use crate::{Errno, Result};

impl Call<'_> {
    /// Has a plan carried out when this transaction is committed, by whoever comes first.
    pub(super) fn plan(&self, guard: &mut Guard<'_>, plan: u64) -> Result<()> {
        guard.set(PLAN, plan)?;
        self.waiters()?.leave_dirty(guard)
    }

    /// As [`Call::plan`], for a plan that says that processes lose adjustments: not if none has any.
    pub(super) fn plan_to_forget(&self, guard: &mut Guard<'_>, plan: u64) -> Result<()> {
        if self.waiters()?.stakes(guard)? == 0 { Ok(()) } else { self.plan(guard, plan) }
    }

    /// Carries out the plan, if there is one. For the beginning of a transaction.
    pub(super) fn carry_out(&self, guard: &mut Guard<'_>) -> Result<()> {
        match guard.get(PLAN)? {
            PLAN_NONE => Ok(()),
            plan => self.carry_out_now(guard, plan),
        }
    }

    #[cold]
    fn carry_out_now(&self, guard: &mut Guard<'_>, plan: u64) -> Result<()> {
        let argument = usize::try_from(plan >> 8).map_err(|_| Errno::UCLEAN)?;
        match plan & 0xff {
            PLAN_LIST if argument <= OPERATIONS_MAX => self.carry_out_list(guard, argument)?,
            PLAN_VALUES => {
                self.carry_out_values(guard)?;
                self.forget(guard, None)?;
            }
            PLAN_FORGET if argument < self.set.count => self.forget(guard, Some(argument))?,
            PLAN_FORGET_ALL => self.forget(guard, None)?,
            _ => return Err(Errno::UCLEAN),
        }
        guard.set(PLAN, PLAN_NONE)?;
        guard.checkpoint();
        Ok(())
    }

    fn carry_out_list(&self, guard: &mut Guard<'_>, count: usize) -> Result<()> {
        let who = guard.get(PLAN_WHO)? as u32;
        let table = usize::try_from(guard.get(PLAN_TABLE)?).map_err(|_| Errno::UCLEAN)?;
        if table != 0 {
            self.waiters()?.slot_with(table)?;
        }
        for at in 0..count {
            let entry = guard.get(list_of(self.set.count) + 8 * at)?;
            let index = self.set.checked_index(entry)?;
            self.store_value(index, (entry >> 16) as u16, who)?;
            if entry >> 48 & 1 != 0 {
                if table == 0 {
                    return Err(Errno::UCLEAN);
                }
                self.store_adjustment(table, index, (entry >> 32) as i16)?;
            }
        }
        Ok(())
    }

    fn carry_out_values(&self, guard: &mut Guard<'_>) -> Result<()> {
        let who = guard.get(PLAN_WHO)? as u32;
        for index in 0..self.set.count {
            let four = guard.get(list_of(self.set.count) + 8 * (index / 4))?;
            self.store_value(index, (four >> (16 * (index % 4))) as u16, who)?;
        }
        Ok(())
    }

    fn store_value(&self, index: usize, value: u16, who: u32) -> Result<()> {
        if value > VALUE_MAX {
            return Err(Errno::UCLEAN);
        }
        self.set.segment.word64(VALUES + 8 * index)?.store(word(value, who), Ordering::Release);
        Ok(())
    }
}
