//! `ginnel rm`.
