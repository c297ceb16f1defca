//! Prints `docs/audit-events.md`.
#![allow(
    unused_crate_dependencies,
    reason = "this package has several programs, each with its own"
)]

fn main() {
    print!("{}", passavant_proto::event::document());
}
