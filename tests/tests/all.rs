//! Every test that needs more than one crate, in one binary.
#![allow(
    unused_crate_dependencies,
    reason = "this package has several programs, each with its own"
)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests stop at the first surprise")]

/// Tests that run on SQLite, and on PostgreSQL where there is one.
macro_rules! everywhere {
    ($($case:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $case() {
            Box::pin(cases::$case()).await;
        })*

        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[tokio::test]
            async fn $case() {
                let name: String = stringify!($case).chars().take(50).collect();
                let url = crate::store_contract::postgres::fresh(&format!("on_{name}")).await;
                passavant_tests::world::IDP_DATABASE.scope(url, Box::pin(super::cases::$case())).await;
            })*
        }
    };
}

mod access_ended;
mod admin_api;
mod administration;
mod administrators;
mod audiences;
mod bridge;
mod client_authentication;
mod client_documents;
mod client_library;
mod cut_off;
mod device;
mod documents;
mod dpop_client;
mod dynamic_registration;
mod ended_at_the_client;
mod ended_tokens;
mod enrolment;
mod explain;
mod flows;
mod formerly;
mod front_channel;
mod gateway;
mod gateway_reports;
mod interactive_sign_in;
mod jwt_verification;
mod logout_notices;
mod openid;
mod own_accounts;
mod pages;
mod provisioning;
mod quirks;
mod redemption;
mod requirements;
mod rules;
mod saml;
mod signals;
mod store_contract;
mod stored_records;
mod taken_away;
mod token_exchange;
mod upgrade;
mod upstream;
