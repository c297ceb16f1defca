//! Every test that needs more than one crate, in one binary.
#![allow(
    unused_crate_dependencies,
    reason = "this package has several programs, each with its own"
)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests stop at the first surprise")]

mod admin_api;
mod administrators;
mod bridge;
mod client_library;
mod device;
mod documents;
mod enrolment;
mod explain;
mod flows;
mod formerly;
mod front_channel;
mod gateway_reports;
mod openid;
mod quirks;
mod requirements;
mod rules;
mod store_contract;
mod stored_records;
mod table_a;
mod table_b;
mod table_c;
mod table_d;
mod table_e;
mod table_h;
mod table_i;
mod table_j;
mod upgrade;
