//! People and their records: rows with versions of their own.

mod account;
mod installation;
mod stranger;
mod user;

pub(crate) use account::{AccountLink, remove_links};
pub(crate) use installation::INSTALLATION;
pub use installation::{Installation, MOST_INSTALLATIONS};
pub(crate) use stranger::LetIn;
pub use user::{Group, User};
