//! `ginnel create`.
