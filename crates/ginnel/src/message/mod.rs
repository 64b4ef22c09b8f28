//! Whole messages: what is sent in one call is received in one call.
//!
//! | mechanism | reached by | who gets a message | carries besides the payload | a full queue |
//! | --- | --- | --- | --- | --- |
//! | [`SysvQueue`] | a key | whom its type suits | a type | waits |
//! | [`PosixQueue`] | a name | highest priority first | a priority | waits |
//! | [`UnixDatagram`] | a path, `@name`, or by birth | the one it is sent to | the sender's name, descriptors, credentials | waits |
//! | [`UnixSeqpacket`] | a path, `@name`, or by birth | the other end of the connection | descriptors, credentials | waits |
//! | [`UdpSocket`] | an IP address and port | one, a group, all | the sender's address | loses it |
//! | [`IcmpEcho`], [`RawSocket`] | an IP address | every raw socket of the protocol | the IP header | loses it |
//!
//! Descriptors and credentials travel with [`descriptor`].
//!
//! ```
//! use ginnel::message::UnixSeqpacket;
//!
//! let (parent, child) = UnixSeqpacket::pair()?;
//! parent.send(b"one message")?;
//! parent.send(b"and another")?;
//! assert_eq!(child.recv_vec()?, Some(b"one message".to_vec()));
//! # Ok::<(), ginnel::Error>(())
//! ```

mod control;
pub mod descriptor;
pub mod icmp;
mod packet;
mod posix_notify;
pub mod posix_queue;
pub mod raw_socket;
pub mod sysv_queue;
pub mod udp;
pub mod unix_datagram;
pub mod unix_seqpacket;

pub use icmp::IcmpEcho;
pub use packet::{BufferSizes, Datagram};
pub use posix_queue::PosixQueue;
pub use raw_socket::RawSocket;
pub use sysv_queue::{Select, SysvQueue};
pub use udp::UdpSocket;
pub use unix_datagram::UnixDatagram;
pub use unix_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
