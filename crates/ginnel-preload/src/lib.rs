//! The drop-in: `libginnel_preload.so` serves a program's System V and POSIX IPC from a namespace in user space.
//!
//! `ginnel run -- program` starts a program with it (`LD_PRELOAD`) and with the namespace's name (`GINNEL_NAMESPACE`). The
//! program's calls of `msgget(2)` and its like come here, and are done by `ginnel_engine`: no system call but to sleep and to
//! wake, no limits of the kernel's, no object of the kernel's. Results, errnos and blocking are glibc's and the kernel's.
//!
//! # How a call goes
//! The symbol is found here first by the dynamic linker. `home` says which namespace this process has: opened by the first
//! call, and if none was named, the call is handed on to the C library (`next`). What the call names (an id, a descriptor, a
//! semaphore's address) is found among what this process has `open`. `call` turns the engine's result into a C answer.
//!
//! # What it does not reach
//! Static programs and raw system calls that do not go through the C library's `syscall()`; programs for which the loader
//! drops the library (set-user-id). A function that a program looks up in the C library itself (`dlopen("libc.so.6")`, then
//! `dlsym`) instead of in the whole process (`dlopen(NULL)`), or from a library that it has loaded with `RTLD_DEEPBIND`.
#![expect(unreachable_pub, reason = "the C library's symbols, for the dynamic linker")]

mod call;
mod credentials;
mod descriptors;
mod fork;
mod held;
mod home;
mod memory;
mod message;
mod next;
mod open;
mod proc;
mod raw;
mod sync;
mod sysv;
