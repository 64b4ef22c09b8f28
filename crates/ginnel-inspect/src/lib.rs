//! Who talks to whom on this host.
