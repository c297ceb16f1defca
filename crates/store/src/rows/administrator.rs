//! The stored form of administrators.

use super::Stored;
use crate::administrators::{AdminRole, Administrator, StoredProof};
use passavant_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct AdministratorRow {
    name: String,
    role: RoleRow,
    proof: ProofRow,
    expires_at: Timestamp,
    created_at: Timestamp,
    #[serde(default)]
    added_by: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RoleRow {
    Auditor,
    Helpdesk,
    Admin,
    Owner,
}

#[derive(Serialize, Deserialize)]
struct ProofRow {
    stored_key: String,
    server_key: String,
}

impl Stored for Administrator {
    type Row = AdministratorRow;

    fn row(&self) -> AdministratorRow {
        let Self {
            name,
            role,
            proof: StoredProof { stored_key, server_key },
            expires_at,
            created_at,
            added_by,
        } = self.clone();
        let role = match role {
            AdminRole::Auditor => RoleRow::Auditor,
            AdminRole::Helpdesk => RoleRow::Helpdesk,
            AdminRole::Admin => RoleRow::Admin,
            AdminRole::Owner => RoleRow::Owner,
        };
        let proof = ProofRow { stored_key, server_key };
        AdministratorRow { name, role, proof, expires_at, created_at, added_by }
    }

    fn of_row(row: AdministratorRow) -> Self {
        let AdministratorRow {
            name,
            role,
            proof: ProofRow { stored_key, server_key },
            expires_at,
            created_at,
            added_by,
        } = row;
        let role = match role {
            RoleRow::Auditor => AdminRole::Auditor,
            RoleRow::Helpdesk => AdminRole::Helpdesk,
            RoleRow::Admin => AdminRole::Admin,
            RoleRow::Owner => AdminRole::Owner,
        };
        let proof = StoredProof { stored_key, server_key };
        Self { name, role, proof, expires_at, created_at, added_by }
    }
}
