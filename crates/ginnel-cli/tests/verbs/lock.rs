//! `ginnel lock`.
