//! `ginnel ls`.
