//! System V queues.

use libc::{IPC_CREAT, IPC_EXCL, IPC_NOWAIT, MSG_COPY, MSG_EXCEPT, MSG_NOERROR};

use super::{Kind, Op, Outcome, Rng, Shared, digest, outcome, payload};
use crate::Result;
use crate::home::SysvMessages;

const GET: i64 = 0;
const SEND: i64 = 1;
const RECEIVE: i64 = 2;
const REMOVE: i64 = 3;
const SET: i64 = 4;
/// How many of the slots are current: the rest remember removed ones.
const CURRENT: i64 = 4;

/// System V queues: nothing of them belongs to a process.
#[derive(Debug, Default)]
pub struct Messages;

fn slot(op: &Op) -> usize {
    op.args[0] as usize
}

impl Messages {
    fn try_act<H: SysvMessages>(h: &H, shared: &mut Shared, op: &Op) -> Result<Outcome> {
        let [_, first, second, third, flags, _] = op.args;
        let id = shared.ids[slot(op)];
        match op.verb {
            GET => {
                // The last current slot's are private, so its old one must go.
                let key = if slot(op) == 3 { 0 } else { slot(op) as i32 + 1 };
                if key == 0 && id >= 0 {
                    let _ = h.msg_remove(id);
                }
                let new = h.msgget(key, flags as i32)?;
                if new != id {
                    shared.ids[slot(op) + CURRENT as usize] = id;
                }
                shared.ids[slot(op)] = new;
                Ok(vec![shared.same(new)])
            }
            SEND => h.msgsnd(id, first, &payload(third, second as usize), flags as i32).map(|()| Vec::new()),
            RECEIVE => {
                let mut text = [0; 64];
                let (mtype, len) = h.msgrcv(id, &mut text[..second as usize], first, flags as i32)?;
                Ok(vec![mtype, len as i64, digest(&text[..len])])
            }
            REMOVE => h.msg_remove(id).map(|()| Vec::new()),
            _ => {
                let mut owner = h.msg_status(id)?.perm.owner();
                owner.mode = second as u32;
                h.msg_set(id, owner, first as u64).map(|()| Vec::new())
            }
        }
    }

    fn one<H: SysvMessages>(h: &H, shared: &Shared, id: i32, deep: bool) -> Result<Outcome> {
        let status = h.msg_status(id)?;
        let mut all = vec![
            status.qnum as i64,
            status.cbytes as i64,
            status.qbytes as i64,
            shared.process(status.lspid),
            shared.process(status.lrpid),
            i64::from(status.stime != 0),
            i64::from(status.rtime != 0),
            i64::from(status.perm.key),
            i64::from(status.perm.mode),
        ];
        for index in 0..if deep { status.qnum as i64 } else { 0 } {
            let mut text = [0; 64];
            let (mtype, len) = h.msgrcv(id, &mut text, index, MSG_COPY | IPC_NOWAIT)?;
            all.extend([mtype, len as i64, digest(&text[..len])]);
        }
        Ok(all)
    }
}

impl<H: SysvMessages> Kind<H> for Messages {
    const NAME: &'static str = "System V queues";

    fn choose(rng: &mut Rng) -> Op {
        let live = rng.range(0, CURRENT - 1);
        // Now and then one that was removed.
        let slot = if rng.one_in(16) { live + CURRENT } else { live };
        match rng.below(100) {
            0..8 => {
                let flags = rng.pick(&[0, IPC_CREAT, IPC_CREAT, IPC_CREAT, IPC_CREAT | IPC_EXCL]) | 0o600;
                Op { verb: GET, args: [live, 0, 0, 0, flags.into(), 0] }
            }
            8..50 => {
                let mtype = if rng.one_in(64) { rng.range(-1, 0) } else { rng.range(1, 6) };
                let len = if rng.one_in(8) { rng.range(0, 60) } else { rng.range(0, 12) };
                let flags = if rng.one_in(3) { 0 } else { IPC_NOWAIT };
                Op { verb: SEND, args: [slot, mtype, len, rng.range(0, 255), flags.into(), 0] }
            }
            50..91 => {
                let mut flags = if rng.one_in(3) { 0 } else { IPC_NOWAIT };
                for (flag, times) in [(MSG_NOERROR, 3), (MSG_EXCEPT, 6), (MSG_COPY, 10)] {
                    if rng.one_in(times) {
                        flags |= flag;
                    }
                }
                let mtype = rng.range(-7, 7);
                let size = if rng.one_in(6) { rng.range(0, 10) } else { 60 };
                Op { verb: RECEIVE, args: [slot, mtype, size, 0, flags.into(), 0] }
            }
            91..92 => Op { verb: REMOVE, args: [slot, 0, 0, 0, 0, 0] },
            _ => {
                let qbytes = if rng.one_in(3) { rng.range(0, 20) } else { rng.range(20, 400) };
                Op { verb: SET, args: [slot, qbytes, rng.pick(&[0o600, 0o660, 0o1777]), 0, 0, 0] }
            }
        }
    }

    fn calm(mut op: Op) -> Op {
        op.args[4] |= match op.verb {
            SEND | RECEIVE => IPC_NOWAIT.into(),
            _ => 0,
        };
        op
    }

    /// The kernel wakes every sender that fits alone, and the scheduler says whose message goes in. `IPC_SET` makes all
    /// receivers look again, and the scheduler says in which order they then stand.
    fn instead(op: &Op, waiting: &[Op]) -> Option<Op> {
        let also = |verb: i64| waiting.iter().filter(|other| other.verb == verb).count();
        match op.verb {
            SEND if also(SEND) > 0 => Some(<Messages as Kind<H>>::calm(*op)),
            SET if also(RECEIVE) > 1 => {
                Some(Op { verb: GET, args: [op.args[0] % CURRENT, 0, 0, 0, 0o600, 0] })
            }
            _ => None,
        }
    }

    fn act(&mut self, home: &H, shared: &mut Shared, op: &Op) -> Outcome {
        outcome(Messages::try_act(home, shared, op))
    }

    fn state(&mut self, home: &H, shared: &Shared, deep: bool, op: &Op) -> Outcome {
        if !deep {
            return outcome(Messages::one(home, shared, shared.ids[slot(op)], false));
        }
        let each = |id: &i32| outcome(Messages::one(home, shared, *id, true));
        shared.ids.iter().flat_map(each).collect()
    }

    fn show(op: &Op) -> String {
        let [slot, first, second, third, flags, _] = op.args;
        match op.verb {
            GET => format!("msgget(key of #{slot}, {flags:#o})"),
            SEND => format!("msgsnd(#{slot}, type {first}, {second} bytes from {third}, {flags:#o})"),
            RECEIVE => format!("msgrcv(#{slot}, {second} bytes, type {first}, {flags:#o})"),
            REMOVE => format!("msgctl(#{slot}, IPC_RMID)"),
            _ => format!("msgctl(#{slot}, IPC_SET, qbytes {first}, mode {second:#o})"),
        }
    }
}
