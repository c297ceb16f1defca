//! How people sign in, and the sessions that result.

pub(crate) mod page;
pub(crate) mod password;
pub(crate) mod session;
pub(crate) mod upstream;
