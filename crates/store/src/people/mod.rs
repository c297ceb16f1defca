//! People and their records: rows with versions of their own.

mod account;
mod credential;
mod installation;
mod provisioned_group;
mod provisioning;
mod stranger;
mod upstream;
mod user;

pub use account::{AccessEnded, EndedAccess};
pub(crate) use account::{AccountLink, remove_links};
pub(crate) use credential::end_credentials;
pub use credential::{
    MOST_PASSKEYS, MOST_TOTP_FAILURES, Passkey, PasskeyAdded, PasskeyRemoved, Proved, Totp,
    TotpCount,
};
pub(crate) use installation::INSTALLATION;
pub use installation::{Installation, MOST_INSTALLATIONS};
pub use provisioned_group::{MemberChange, ProvisionedGroup};
pub(crate) use provisioning::end_provisioning;
pub use provisioning::{Lookup, NotProvisioned, ProvisionedPerson, Provisioner, ProvisioningToken};
pub(crate) use stranger::LetIn;
pub use upstream::{
    Checked, DueSession, LoggedOut, PersonLink, Told, UpstreamOutcome, UpstreamSignIn,
};
pub(crate) use upstream::{leave_upstream_groups, remove_person_links};
pub use user::{Group, User};
