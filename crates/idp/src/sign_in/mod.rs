//! How people sign in: by what this server knows of them (a password, one-time passwords, passkeys), or
//! at an upstream.

pub(crate) mod own;
pub(crate) mod page;
pub(crate) mod passkey;
pub(crate) mod password;
pub(crate) mod session;
pub(crate) mod upstream;
