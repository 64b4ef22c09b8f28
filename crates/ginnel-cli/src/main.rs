//! The command `ginnel`.

fn main() {}
