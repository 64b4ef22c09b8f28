//! System V shared memory.
#![allow(unsafe_code)]

use libc::{IPC_CREAT, IPC_EXCL, SHM_RDONLY};

use super::{Kind, Op, Outcome, Rng, Shared, outcome};
use crate::home::SysvMemory;
use crate::{Errno, Result};

const GET: i64 = 0;
const ATTACH: i64 = 1;
const DETACH: i64 = 2;
const WRITE: i64 = 3;
const READ: i64 = 4;
const REMOVE: i64 = 5;
const SET: i64 = 6;
const CURRENT: i64 = 4;
/// Every segment has at least that much.
const SIZE: i64 = 5000;
/// How many attaches a process keeps.
const ATTACHES: i64 = 5;

/// What a process has attached: where, and whether for writing.
#[derive(Debug, Default)]
pub struct Segments {
    attached: [Option<(usize, bool)>; ATTACHES as usize],
}

fn slot(op: &Op) -> usize {
    op.args[0] as usize
}

impl Segments {
    fn try_act<H: SysvMemory>(&mut self, h: &H, shared: &mut Shared, op: &Op) -> Result<Outcome> {
        let id = shared.ids[slot(op)];
        let [_, first, second, third, ..] = op.args;
        match op.verb {
            GET => {
                let key = if slot(op) == 3 { 0 } else { slot(op) as i32 + 1 };
                if key == 0 && id >= 0 {
                    let _ = h.shm_remove(id);
                }
                let new = h.shmget(key, first as usize, second as i32)?;
                if new != id {
                    shared.ids[slot(op) + CURRENT as usize] = id;
                }
                shared.ids[slot(op)] = new;
                Ok(vec![shared.same(new)])
            }
            ATTACH => {
                let place = &mut self.attached[first as usize];
                if let Some((address, _)) = place.take() {
                    h.shmdt(address)?;
                }
                let read_only = second as i32 & SHM_RDONLY != 0;
                *place = Some((h.shmat(id, 0, second as i32)?, !read_only));
                Ok(Vec::new())
            }
            DETACH => match self.attached[first as usize].take() {
                Some((address, _)) => h.shmdt(address).map(|()| Vec::new()),
                None => h.shmdt(0).map(|()| Vec::new()),
            },
            WRITE => {
                let (address, writable) = self.attached[first as usize].ok_or(Errno::NODEV)?;
                if !writable {
                    return Err(Errno::ROFS);
                }
                // SAFETY: the offset is within every segment, and it is attached for writing.
                unsafe { ((address + second as usize) as *mut u8).write_volatile(third as u8) };
                Ok(Vec::new())
            }
            READ => {
                let (address, _) = self.attached[first as usize].ok_or(Errno::NODEV)?;
                // SAFETY: the offset is within every segment, and it is attached.
                Ok(vec![unsafe { ((address + second as usize) as *const u8).read_volatile() }.into()])
            }
            REMOVE => h.shm_remove(id).map(|()| Vec::new()),
            _ => {
                let mut owner = h.shm_status(id)?.perm.owner();
                owner.mode = first as u32;
                h.shm_set(id, owner).map(|()| Vec::new())
            }
        }
    }

    fn one<H: SysvMemory>(h: &H, shared: &Shared, id: i32) -> Result<Outcome> {
        let status = h.shm_status(id)?;
        Ok(vec![
            status.nattch as i64,
            status.segsz as i64,
            status.doomed.into(),
            shared.process(status.cpid),
            if shared.stamps_deaths { shared.process(status.lpid) } else { 0 },
            i64::from(status.atime != 0),
            i64::from(shared.stamps_deaths && status.dtime != 0),
            status.perm.key.into(),
            status.perm.mode.into(),
        ])
    }
}

impl<H: SysvMemory> Kind<H> for Segments {
    const NAME: &'static str = "System V shared memory";

    fn choose(rng: &mut Rng) -> Op {
        let live = rng.range(0, CURRENT - 1);
        let slot = if rng.one_in(8) { live + CURRENT } else { live };
        let place = rng.range(0, ATTACHES - 1);
        let offset = if rng.one_in(2) { rng.range(0, 3) } else { rng.range(0, SIZE - 1) };
        match rng.below(100) {
            0..12 => {
                let flags = rng.pick(&[0, IPC_CREAT, IPC_CREAT, IPC_CREAT, IPC_CREAT | IPC_EXCL]) | 0o600;
                let size = if rng.one_in(6) { rng.pick(&[0, 1, SIZE + 1]) } else { SIZE };
                // A new one must have room for what is written.
                let size = if size == 0 {
                    0
                } else if flags & IPC_CREAT != 0 || live == 3 {
                    size.max(SIZE)
                } else {
                    size
                };
                Op { verb: GET, args: [live, size, flags.into(), 0, 0, 0] }
            }
            12..35 => {
                let flags = if rng.one_in(4) { SHM_RDONLY } else { 0 };
                Op { verb: ATTACH, args: [slot, place, flags.into(), 0, 0, 0] }
            }
            35..50 => Op { verb: DETACH, args: [slot, place, 0, 0, 0, 0] },
            50..70 => Op { verb: WRITE, args: [slot, place, offset, rng.range(0, 255), 0, 0] },
            70..90 => Op { verb: READ, args: [slot, place, offset, 0, 0, 0] },
            90..96 => Op { verb: REMOVE, args: [slot, 0, 0, 0, 0, 0] },
            _ => Op { verb: SET, args: [slot, rng.pick(&[0o600, 0o660, 0o777]), 0, 0, 0, 0] },
        }
    }

    fn calm(op: Op) -> Op {
        op
    }

    fn act(&mut self, home: &H, shared: &mut Shared, op: &Op) -> Outcome {
        outcome(self.try_act(home, shared, op))
    }

    fn state(&mut self, home: &H, shared: &Shared, deep: bool, op: &Op) -> Outcome {
        if !deep {
            return outcome(Segments::one(home, shared, shared.ids[slot(op)]));
        }
        shared.ids.iter().flat_map(|id| outcome(Segments::one(home, shared, *id))).collect()
    }

    fn show(op: &Op) -> String {
        let [slot, first, second, third, ..] = op.args;
        match op.verb {
            GET => format!("shmget(key of #{slot}, {first}, {second:#o})"),
            ATTACH => format!("attach {first} = shmat(#{slot}, {second:#o})"),
            DETACH => format!("shmdt(attach {first})"),
            WRITE => format!("attach {first}[{second}] = {third}"),
            READ => format!("read attach {first}[{second}]"),
            REMOVE => format!("shmctl(#{slot}, IPC_RMID)"),
            _ => format!("shmctl(#{slot}, IPC_SET, mode {first:#o})"),
        }
    }
}
