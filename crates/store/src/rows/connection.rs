//! The stored form of a connection.

use super::Stored;
use passavant_proto::{
    formerly,
    identifier::{Issuer, Resource},
    oauth::scope::Scopes,
    policy::{Conditions, Connection, Subject},
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct ConnectionRow {
    id: String,
    #[serde(deserialize_with = "formerly::text")]
    idp_client_id: String,
    audience: Issuer,
    #[serde(default)]
    ras_client_id: Option<String>,
    resources: Vec<Resource>,
    #[serde(default)]
    scopes: Scopes,
    #[serde(default)]
    subjects: Vec<SubjectRow>,
    #[serde(default)]
    conditions: ConditionsRow,
    #[serde(default)]
    disabled: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SubjectRow {
    Everyone,
    Group(String),
    User(String),
}

#[derive(Default, Serialize, Deserialize)]
struct ConditionsRow {
    #[serde(default)]
    max_authentication_age: Option<i64>,
    #[serde(default, deserialize_with = "formerly::texts")]
    acr_values: Vec<String>,
}

impl Stored for Connection {
    type Row = ConnectionRow;

    fn row(&self) -> ConnectionRow {
        let Self {
            id,
            idp_client_id,
            audience,
            ras_client_id,
            resources,
            scopes,
            subjects,
            conditions: Conditions { max_authentication_age, acr_values },
            disabled,
        } = self.clone();
        ConnectionRow {
            id,
            idp_client_id,
            audience,
            ras_client_id,
            resources,
            scopes,
            subjects: subjects.into_iter().map(to_row).collect(),
            conditions: ConditionsRow { max_authentication_age, acr_values },
            disabled,
        }
    }

    fn of_row(row: ConnectionRow) -> Self {
        let ConnectionRow {
            id,
            idp_client_id,
            audience,
            ras_client_id,
            resources,
            scopes,
            subjects,
            conditions: ConditionsRow { max_authentication_age, acr_values },
            disabled,
        } = row;
        Self {
            id,
            idp_client_id,
            audience,
            ras_client_id,
            resources,
            scopes,
            subjects: subjects.into_iter().map(of_row).collect(),
            conditions: Conditions { max_authentication_age, acr_values },
            disabled,
        }
    }
}

fn to_row(subject: Subject) -> SubjectRow {
    match subject {
        Subject::Everyone => SubjectRow::Everyone,
        Subject::Group(name) => SubjectRow::Group(name),
        Subject::User(id) => SubjectRow::User(id),
    }
}

fn of_row(row: SubjectRow) -> Subject {
    match row {
        SubjectRow::Everyone => Subject::Everyone,
        SubjectRow::Group(name) => Subject::Group(name),
        SubjectRow::User(id) => Subject::User(id),
    }
}
