//! The stored form of a trusted issuer.

use super::Stored;
use passavant_proto::{
    identifier::Issuer,
    jose::jwk::Algorithm,
    xaa::trust::{AccountResolution, InteractiveSignIn, TrustedIssuer},
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct TrustedIssuerRow {
    issuer: Issuer,
    #[serde(default)]
    jwks_uri: Option<String>,
    #[serde(default)]
    algorithm: Algorithm,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audience_tenant: Option<String>,
    #[serde(default)]
    accounts: AccountResolutionRow,
    #[serde(default)]
    allow_reuse: bool,
    #[serde(default)]
    client_documents: bool,
    #[serde(default)]
    sign_in: Option<InteractiveSignInRow>,
    #[serde(default)]
    disabled: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct AccountResolutionRow {
    #[serde(default)]
    just_in_time: bool,
    #[serde(default)]
    email_domains: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct InteractiveSignInRow {
    client_id: String,
    #[serde(default)]
    domains: Vec<String>,
}

impl Stored for TrustedIssuer {
    type Row = TrustedIssuerRow;

    fn row(&self) -> TrustedIssuerRow {
        let Self {
            issuer,
            jwks_uri,
            algorithm,
            tenant,
            audience_tenant,
            accounts: AccountResolution { just_in_time, email_domains },
            allow_reuse,
            client_documents,
            sign_in,
            disabled,
        } = self.clone();
        let to_row =
            |InteractiveSignIn { client_id, domains }| InteractiveSignInRow { client_id, domains };
        TrustedIssuerRow {
            issuer,
            jwks_uri,
            algorithm,
            tenant,
            audience_tenant,
            accounts: AccountResolutionRow { just_in_time, email_domains },
            allow_reuse,
            client_documents,
            sign_in: sign_in.map(to_row),
            disabled,
        }
    }

    fn of_row(row: TrustedIssuerRow) -> Self {
        let TrustedIssuerRow {
            issuer,
            jwks_uri,
            algorithm,
            tenant,
            audience_tenant,
            accounts: AccountResolutionRow { just_in_time, email_domains },
            allow_reuse,
            client_documents,
            sign_in,
            disabled,
        } = row;
        let of_row =
            |InteractiveSignInRow { client_id, domains }| InteractiveSignIn { client_id, domains };
        Self {
            issuer,
            jwks_uri,
            algorithm,
            tenant,
            audience_tenant,
            accounts: AccountResolution { just_in_time, email_domains },
            allow_reuse,
            client_documents,
            sign_in: sign_in.map(of_row),
            disabled,
        }
    }
}
