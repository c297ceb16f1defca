//! Sign-ins: sessions, codes, pushed requests, device codes, refresh tokens. Everything is looked
//! up by the hash of its secret.

mod code;
mod device_code;
mod logout_notice;
mod of_client;
mod of_server;
mod pushed_request;
mod refresh_token;
mod session;

pub(crate) use code::use_code;
pub use code::{AuthorizationCode, CodeState};
pub use device_code::{DeviceCode, DeviceState};
pub use logout_notice::LogoutNotice;
pub(crate) use of_client::end_client;
pub(crate) use of_server::{
    end_account, end_account_of_issuer, end_issuer, end_party, end_resource, end_upstream,
};
pub use pushed_request::PushedRequest;
pub(crate) use refresh_token::{
    MARKED, keep_refresh, replace_refresh, revoke_family, write_refresh,
};
pub use refresh_token::{RefreshToken, RefreshTokenState, Replaces, Rotation};
pub use session::Session;
pub(crate) use session::{end as end_session, end_sign_ins, insert_session, leave_cookie};
