//! Request and reply: what `ginnel serve` and `ginnel call` say to each other, over whatever carries whole messages.
//!
//! # The wire format
//! Numbers are little-endian. A C client needs no more than this (`tests/serve.c` is one).
//!
//! | request, offset | bytes | |
//! | --- | --- | --- |
//! | 0 | 4 | `GRQ1` |
//! | 4 | 4 | the client's PID; 0 where no reply depends on it (every socket) |
//! | 8 | 8 | the inode of `/proc/self/ns/pid`, or 0 for "does not say" |
//! | 16 | 8 | the client: a random number, the same for all its requests |
//! | 24 | 8 | which of its requests: any number; the reply has the same |
//! | 32 | | the payload |
//!
//! | reply, offset | bytes | |
//! | --- | --- | --- |
//! | 0 | 4 | `GRP1` |
//! | 4 | 4 | 0: done. 1 to 255: the command's exit status. 256 + N: it was killed by signal N. -1: refused or not run |
//! | 8 | 8 | the client, as in the request |
//! | 16 | 8 | which request, as in the request |
//! | 24 | | status 0: what the command printed; else the reason, text without a line's end |
//!
//! A client takes only the reply that has both its numbers and drops any other: one that came after its time was over,
//! or that was for a process that had the same PID before.
//!
//! # How it is carried
//! | endpoint | request | reply |
//! | --- | --- | --- |
//! | `sysv-msg` | message of type 1 | message whose type is the client's PID (so PID 1 cannot be a client) |
//! | `posix-mq` | message, priority 0 | message in `/ginnel-reply-PID-CLIENT` (the client in 16 hex digits), which the client made |
//! | `unix`, `tcp` | frame: its length in 4 bytes, big-endian, before it | frame on the same connection |
//! | `unix-seqpacket` | packet | packet on the same connection |
//! | `unix-dgram`, `udp` | datagram, from a socket that has an address | datagram to that address |

pub(crate) mod client;
pub(crate) mod connections;
pub(crate) mod datagrams;
pub(crate) mod jobs;
pub(crate) mod lamp;
pub(crate) mod posix;
pub(crate) mod sysv;

use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::MetadataExt;

const REQUEST_MAGIC: [u8; 4] = *b"GRQ1";
const REPLY_MAGIC: [u8; 4] = *b"GRP1";
pub(crate) const REQUEST_BYTES: usize = 32;
pub(crate) const REPLY_BYTES: usize = 24;

/// The status of a reply to a request that no command has answered.
const REFUSED: i32 = -1;

/// A question, and who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) pid: i32,
    pub(crate) pid_namespace: u64,
    pub(crate) tag: Tag,
    pub(crate) payload: Vec<u8>,
}

/// What ties a reply to its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) client: u64,
    pub(crate) number: u64,
}

/// What the command made of a request, or why there is nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: i32,
    pub(crate) payload: Vec<u8>,
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(REQUEST_BYTES + self.payload.len());
        bytes.extend(REQUEST_MAGIC);
        bytes.extend(self.pid.to_le_bytes());
        bytes.extend(self.pid_namespace.to_le_bytes());
        bytes.extend(self.tag.client.to_le_bytes());
        bytes.extend(self.tag.number.to_le_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// `None`: these bytes are no request.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Request> {
        let (head, payload) = bytes.split_first_chunk::<REQUEST_BYTES>()?;
        let tag = Tag { client: number(&head[16..24]), number: number(&head[24..32]) };
        let pid = i32::from_le_bytes(head[4..8].try_into().ok()?);
        let request = Request { pid, pid_namespace: number(&head[8..16]), tag, payload: payload.into() };
        (head[..4] == REQUEST_MAGIC).then_some(request)
    }
}

impl Answer {
    /// The reply to a request that was not, or could not be, answered.
    pub(crate) fn refused(why: impl Into<String>) -> Answer {
        Answer { status: REFUSED, payload: why.into().into_bytes() }
    }

    pub(crate) fn encode(&self, tag: Tag) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(REPLY_BYTES + self.payload.len());
        bytes.extend(REPLY_MAGIC);
        bytes.extend(self.status.to_le_bytes());
        bytes.extend(tag.client.to_le_bytes());
        bytes.extend(tag.number.to_le_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// `None`: these bytes are no reply.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Tag, Answer)> {
        let (head, payload) = bytes.split_first_chunk::<REPLY_BYTES>()?;
        let tag = Tag { client: number(&head[8..16]), number: number(&head[16..24]) };
        let status = i32::from_le_bytes(head[4..8].try_into().ok()?);
        (head[..4] == REPLY_MAGIC).then(|| (tag, Answer { status, payload: payload.into() }))
    }

    /// What the command printed, or in words why there is nothing.
    pub(crate) fn into_result(self) -> Result<Vec<u8>, String> {
        if self.status == 0 {
            return Ok(self.payload);
        }
        let reason = String::from_utf8_lossy(&self.payload);
        let colon = if reason.is_empty() { "" } else { ": " };
        Err(match self.status {
            1..=255 => {
                format!("the server's command failed with exit status {}{colon}{reason}", self.status)
            }
            256.. => {
                format!("the server's command was killed by signal {}{colon}{reason}", self.status - 256)
            }
            _ => format!("the server refuses{colon}{reason}"),
        })
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A number that nobody guesses.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Which namespace of a kind (`"pid"`, `"ipc"`) this process is in; 0 if `/proc` does not tell.
pub(crate) fn namespace(kind: &str) -> u64 {
    std::fs::metadata(format!("/proc/self/ns/{kind}")).map_or(0, |status| status.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let tag = Tag { client: u64::MAX - 5, number: 7 };
        let request = Request { pid: 4711, pid_namespace: 0xf000_0001, tag, payload: b"over".to_vec() };
        assert_eq!(Request::decode(&request.encode()), Some(request));
        let answer = Answer { status: -1, payload: b"no".to_vec() };
        assert_eq!(Answer::decode(&answer.encode(tag)), Some((tag, answer)));
    }

    #[test]
    fn nonsense_is_neither() {
        let request =
            Request { pid: 1, pid_namespace: 0, tag: Tag { client: 1, number: 1 }, payload: vec![] };
        let bytes = request.encode();
        assert!(Request::decode(&bytes).is_some());
        assert!(Request::decode(&bytes[..REQUEST_BYTES - 1]).is_none());
        assert!(Answer::decode(&bytes).is_none());
        assert!(Request::decode(&[0; 64]).is_none());
    }

    #[test]
    fn a_failure_says_what_happened() {
        let said = |status, text: &str| Answer { status, payload: text.into() }.into_result().unwrap_err();
        assert_eq!(said(3, "no such job"), "the server's command failed with exit status 3: no such job");
        assert_eq!(said(256 + 9, ""), "the server's command was killed by signal 9");
        assert_eq!(said(-1, "too long"), "the server refuses: too long");
    }
}
