//! The stored form of people of the company, and of their groups.

use super::Stored;
use crate::people::{Group, User};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Serialize, Deserialize)]
pub struct UserRow {
    id: String,
    username: String,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    family_name: Option<String>,
    #[serde(default)]
    groups: BTreeSet<String>,
    #[serde(default)]
    password_hash: Option<String>,
    #[serde(default)]
    disabled: bool,
}

impl Stored for User {
    type Row = UserRow;

    fn row(&self) -> UserRow {
        let Self {
            id,
            username,
            email,
            email_verified,
            display_name,
            given_name,
            family_name,
            groups,
            password_hash,
            disabled,
        } = self.clone();
        UserRow {
            id,
            username,
            email,
            email_verified,
            display_name,
            given_name,
            family_name,
            groups,
            password_hash,
            disabled,
        }
    }

    fn of_row(row: UserRow) -> Self {
        let UserRow {
            id,
            username,
            email,
            email_verified,
            display_name,
            given_name,
            family_name,
            groups,
            password_hash,
            disabled,
        } = row;
        Self {
            id,
            username,
            email,
            email_verified,
            display_name,
            given_name,
            family_name,
            groups,
            password_hash,
            disabled,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub struct GroupRow {
    name: String,
    #[serde(default)]
    description: String,
}

impl Stored for Group {
    type Row = GroupRow;

    fn row(&self) -> GroupRow {
        let Self { name, description } = self.clone();
        GroupRow { name, description }
    }

    fn of_row(row: GroupRow) -> Self {
        let GroupRow { name, description } = row;
        Self { name, description }
    }
}
