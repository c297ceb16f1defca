//! Contains only tests: `cargo test -p passavant-fuzz`.
#![allow(unused_crate_dependencies, reason = "they are the tests'")]
