//! Writes docs/openapi.json: `cargo run -p passavant-tests --example openapi > docs/openapi.json`.
#![allow(
    unused_crate_dependencies,
    reason = "this package has several programs, each with its own"
)]

fn main() {
    print!("{}", passavant_admin::document_text());
}
