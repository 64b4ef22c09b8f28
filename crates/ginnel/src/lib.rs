//! Every way that processes on a Unix host talk to each other.
