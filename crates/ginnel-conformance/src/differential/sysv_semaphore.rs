//! System V semaphore sets.

use libc::{IPC_CREAT, IPC_EXCL, IPC_NOWAIT, SEM_UNDO, sembuf};

use super::{Kind, Op, Outcome, Rng, Shared, outcome};
use crate::Result;
use crate::home::SysvSemaphores;

const GET: i64 = 0;
const OPERATE: i64 = 1;
const SETVAL: i64 = 2;
const SETALL: i64 = 3;
const REMOVE: i64 = 4;
const CURRENT: i64 = 4;
/// How many semaphores a set has.
const COUNT: i64 = 3;

/// Semaphore sets: nothing of them belongs to a process but what it has to undo.
#[derive(Debug, Default)]
pub struct Sets;

fn slot(op: &Op) -> usize {
    op.args[0] as usize
}

/// An operation in a number: which semaphore, how much, which flags.
fn pack(semaphore: i64, change: i64, flags: i64) -> i64 {
    semaphore << 32 | (change & 0xffff) << 16 | flags
}

fn unpack(word: i64) -> sembuf {
    sembuf { sem_num: (word >> 32) as u16, sem_op: (word >> 16) as i16, sem_flg: word as i16 }
}

fn operations(op: &Op) -> Vec<sembuf> {
    let count = op.args[1] as usize;
    op.args[2..2 + count].iter().map(|word| unpack(*word)).collect()
}

impl Sets {
    fn try_act<H: SysvSemaphores>(h: &H, shared: &mut Shared, op: &Op) -> Result<Outcome> {
        let id = shared.ids[slot(op)];
        let [_, first, second, third, fourth, _] = op.args;
        match op.verb {
            GET => {
                let key = if slot(op) == 3 { 0 } else { slot(op) as i32 + 1 };
                if key == 0 && id >= 0 {
                    let _ = h.sem_remove(id);
                }
                let new = h.semget(key, first as i32, second as i32)?;
                if new != id {
                    shared.ids[slot(op) + CURRENT as usize] = id;
                }
                shared.ids[slot(op)] = new;
                Ok(vec![shared.same(new)])
            }
            OPERATE => h.semop(id, &operations(op)).map(|()| Vec::new()),
            SETVAL => h.sem_setval(id, first as i32, second as i32).map(|()| Vec::new()),
            SETALL => {
                let all = [first as u16, second as u16, third as u16, fourth as u16];
                let count = h.sem_status(id)?.nsems as usize;
                let all: Vec<u16> = all.into_iter().cycle().take(count).collect();
                h.sem_setall(id, &all).map(|()| Vec::new())
            }
            _ => h.sem_remove(id).map(|()| Vec::new()),
        }
    }

    fn one<H: SysvSemaphores>(h: &H, shared: &Shared, id: i32, deep: bool) -> Result<Outcome> {
        let mut all: Vec<i64> = h.sem_getall(id)?.into_iter().map(i64::from).collect();
        if deep {
            for number in 0..all.len() as i32 {
                all.push(shared.process(h.sem_getpid(id, number)?));
                all.push(h.sem_getncnt(id, number)?.into());
                all.push(h.sem_getzcnt(id, number)?.into());
            }
            let status = h.sem_status(id)?;
            // The kernel also stamps the set at the end of who asked for undo and was refused.
            let otime = i64::from(shared.stamps_deaths && status.otime != 0);
            all.extend([otime, status.perm.key.into(), status.perm.mode.into()]);
        }
        Ok(all)
    }
}

impl<H: SysvSemaphores> Kind<H> for Sets {
    const NAME: &'static str = "System V semaphores";

    fn choose(rng: &mut Rng) -> Op {
        let live = rng.range(0, CURRENT - 1);
        let slot = if rng.one_in(16) { live + CURRENT } else { live };
        match rng.below(100) {
            0..8 => {
                let flags = rng.pick(&[0, IPC_CREAT, IPC_CREAT, IPC_CREAT, IPC_CREAT | IPC_EXCL]) | 0o600;
                let count = if rng.one_in(6) { rng.range(-1, 5) } else { COUNT };
                Op { verb: GET, args: [live, count, flags.into(), 0, 0, 0] }
            }
            8..90 => {
                let count = rng.pick(&[1, 1, 1, 2, 3, 4]);
                let mut op = Op { verb: OPERATE, args: [slot, count, 0, 0, 0, 0] };
                let undo = if rng.one_in(3) { SEM_UNDO } else { 0 };
                for word in &mut op.args[2..2 + count as usize] {
                    let semaphore = if rng.one_in(64) { COUNT } else { rng.range(0, COUNT - 1) };
                    let change = if rng.one_in(200) { rng.pick(&[32767, -32768]) } else { rng.range(-3, 3) };
                    let wait = if rng.one_in(2) { 0 } else { IPC_NOWAIT };
                    *word = pack(semaphore, change, (undo | wait).into());
                }
                op
            }
            90..95 => {
                let value = if rng.one_in(10) { rng.pick(&[-1, 32768, 32767]) } else { rng.range(0, 4) };
                Op { verb: SETVAL, args: [slot, rng.range(-1, COUNT), value, 0, 0, 0] }
            }
            95..99 => {
                let mut value = || if rng.one_in(20) { 32767 + rng.range(0, 1) } else { rng.range(0, 3) };
                let values = [value(), value(), value(), value()];
                Op { verb: SETALL, args: [slot, values[0], values[1], values[2], values[3], 0] }
            }
            _ => Op { verb: REMOVE, args: [slot, 0, 0, 0, 0, 0] },
        }
    }

    fn calm(mut op: Op) -> Op {
        if op.verb == OPERATE {
            let count = op.args[1] as usize;
            op.args[2..2 + count].iter_mut().for_each(|word| *word |= i64::from(IPC_NOWAIT));
        }
        op
    }

    fn act(&mut self, home: &H, shared: &mut Shared, op: &Op) -> Outcome {
        outcome(Sets::try_act(home, shared, op))
    }

    fn state(&mut self, home: &H, shared: &Shared, deep: bool, op: &Op) -> Outcome {
        if !deep {
            return outcome(Sets::one(home, shared, shared.ids[slot(op)], false));
        }
        shared.ids.iter().flat_map(|id| outcome(Sets::one(home, shared, *id, true))).collect()
    }

    fn show(op: &Op) -> String {
        let [slot, first, second, third, fourth, _] = op.args;
        match op.verb {
            GET => format!("semget(key of #{slot}, {first}, {second:#o})"),
            OPERATE => {
                let each = operations(op).into_iter().map(|op| {
                    let undo = if i32::from(op.sem_flg) & SEM_UNDO != 0 { " undo" } else { "" };
                    let wait = if i32::from(op.sem_flg) & IPC_NOWAIT != 0 { " nowait" } else { "" };
                    format!("{} {:+}{undo}{wait}", op.sem_num, op.sem_op)
                });
                format!("semop(#{slot}, [{}])", each.collect::<Vec<_>>().join(", "))
            }
            SETVAL => format!("semctl(#{slot}, {first}, SETVAL, {second})"),
            SETALL => format!("semctl(#{slot}, SETALL, {first} {second} {third} {fourth})"),
            _ => format!("semctl(#{slot}, IPC_RMID)"),
        }
    }
}
