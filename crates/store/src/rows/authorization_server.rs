//! The stored form of an authorization server that an identity provider knows.

use super::Stored;
use passavant_proto::{
    identifier::Issuer,
    jose::jwk::Algorithm,
    policy::{ReleasedClaim, ResourceAuthorizationServer, SubIdFormat},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Serialize, Deserialize)]
pub struct AuthorizationServerRow {
    issuer: Issuer,
    #[serde(default)]
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    release: BTreeSet<ReleasedClaimRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aud_tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aud_sub: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub_id: Option<SubIdFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_jag_signing_alg: Option<Algorithm>,
    #[serde(default)]
    algorithm: Algorithm,
    #[serde(default)]
    disabled: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReleasedClaimRow {
    Email,
    AuthTime,
    Acr,
    Amr,
}

impl Stored for ResourceAuthorizationServer {
    type Row = AuthorizationServerRow;

    fn row(&self) -> AuthorizationServerRow {
        let Self {
            issuer,
            name,
            aliases,
            release,
            aud_tenant,
            aud_sub,
            sub_id,
            id_jag_signing_alg,
            algorithm,
            disabled,
        } = self.clone();
        AuthorizationServerRow {
            issuer,
            name,
            aliases,
            release: release.into_iter().map(to_row).collect(),
            aud_tenant,
            aud_sub,
            sub_id,
            id_jag_signing_alg,
            algorithm,
            disabled,
        }
    }

    fn of_row(row: AuthorizationServerRow) -> Self {
        let AuthorizationServerRow {
            issuer,
            name,
            aliases,
            release,
            aud_tenant,
            aud_sub,
            sub_id,
            id_jag_signing_alg,
            algorithm,
            disabled,
        } = row;
        let release = release.into_iter().map(of_row).collect();
        Self {
            issuer,
            name,
            aliases,
            release,
            aud_tenant,
            aud_sub,
            sub_id,
            id_jag_signing_alg,
            algorithm,
            disabled,
        }
    }
}

fn to_row(claim: ReleasedClaim) -> ReleasedClaimRow {
    match claim {
        ReleasedClaim::Email => ReleasedClaimRow::Email,
        ReleasedClaim::AuthTime => ReleasedClaimRow::AuthTime,
        ReleasedClaim::Acr => ReleasedClaimRow::Acr,
        ReleasedClaim::Amr => ReleasedClaimRow::Amr,
    }
}

fn of_row(row: ReleasedClaimRow) -> ReleasedClaim {
    match row {
        ReleasedClaimRow::Email => ReleasedClaim::Email,
        ReleasedClaimRow::AuthTime => ReleasedClaim::AuthTime,
        ReleasedClaimRow::Acr => ReleasedClaim::Acr,
        ReleasedClaimRow::Amr => ReleasedClaim::Amr,
    }
}
