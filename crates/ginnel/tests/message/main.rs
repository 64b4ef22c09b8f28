//! The message family, on the kernel's real objects and between real processes.

#![allow(unsafe_code)]

mod common;
mod descriptor;
mod examples;
/// Not every suite needs all of it.
#[allow(dead_code)]
#[path = "../common/homes.rs"]
mod homes;
mod icmp;
mod posix_queue;
mod raw_socket;
mod sysv_queue;
#[cfg(feature = "tokio")]
mod tokio;
mod udp;
mod unix_datagram;
mod unix_seqpacket;
