//! The stored form of accounts, and of the links that say whose they are.

use super::Stored;
use crate::people::AccountLink;
use passavant_proto::{
    identifier::SubjectIssuer,
    xaa::trust::{Account, SubjectLink},
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct AccountRow {
    id: String,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    disabled: bool,
}

impl Stored for Account {
    type Row = AccountRow;

    fn row(&self) -> AccountRow {
        let Self { id, email, disabled } = self.clone();
        AccountRow { id, email, disabled }
    }

    fn of_row(row: AccountRow) -> Self {
        let AccountRow { id, email, disabled } = row;
        Self { id, email, disabled }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct AccountLinkRow {
    link: SubjectLinkRow,
    account: String,
}

#[derive(Serialize, Deserialize)]
struct SubjectLinkRow {
    issuer: SubjectIssuer,
    #[serde(default)]
    tenant: Option<String>,
    subject: String,
}

impl Stored for AccountLink {
    type Row = AccountLinkRow;

    fn row(&self) -> AccountLinkRow {
        let Self { link: SubjectLink { issuer, tenant, subject }, account } = self.clone();
        AccountLinkRow { link: SubjectLinkRow { issuer, tenant, subject }, account }
    }

    fn of_row(row: AccountLinkRow) -> Self {
        let AccountLinkRow { link: SubjectLinkRow { issuer, tenant, subject }, account } = row;
        Self { link: SubjectLink { issuer, tenant, subject }, account }
    }
}
