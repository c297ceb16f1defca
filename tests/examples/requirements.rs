//! Prints `docs/requirements.md`.
#![allow(
    unused_crate_dependencies,
    reason = "this package has several programs, each with its own"
)]

use passavant_tests::requirements::{YAML, document, read};

fn main() {
    print!("{}", document(&read(YAML)));
}
