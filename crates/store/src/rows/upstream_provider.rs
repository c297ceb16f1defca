//! The stored form of an identity provider at which the company's people sign in.

use super::Stored;
use passavant_proto::{
    identifier::Issuer,
    jose::jwk::Algorithm,
    oidc::upstream::{Preset, UpstreamAuthentication, UpstreamProvider},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Serialize, Deserialize)]
pub struct UpstreamProviderRow {
    name: String,
    display_name: String,
    #[serde(default)]
    preset: PresetRow,
    issuer: Issuer,
    #[serde(default)]
    tenants: BTreeSet<String>,
    #[serde(default)]
    hosted_domains: BTreeSet<String>,
    client_id: String,
    authentication: AuthenticationRow,
    algorithm: Algorithm,
    #[serde(default)]
    domains: BTreeSet<String>,
    #[serde(default)]
    scopes: BTreeSet<String>,
    #[serde(default)]
    username_claim: Option<String>,
    #[serde(default)]
    groups_claim: Option<String>,
    #[serde(default)]
    asks_consent: bool,
    #[serde(default)]
    groups: BTreeMap<String, String>,
    #[serde(default)]
    acr_values: BTreeMap<String, String>,
    #[serde(default)]
    just_in_time: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external_id_is_subject: Option<bool>,
    #[serde(default)]
    disabled: bool,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PresetRow {
    #[default]
    Generic,
    Entra,
    Google,
    Okta,
    Keycloak,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AuthenticationRow {
    PrivateKeyJwt {
        algorithm: Option<Algorithm>,
    },
    Certificate {
        certificate: String,
        sealed_key: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<NextRow>,
    },
    SecretPost(String),
    SecretBasic(String),
}

#[derive(Serialize, Deserialize)]
struct NextRow {
    certificate: String,
    sealed_key: String,
}

impl Stored for UpstreamProvider {
    type Row = UpstreamProviderRow;

    fn row(&self) -> UpstreamProviderRow {
        let Self {
            name,
            display_name,
            preset,
            issuer,
            tenants,
            hosted_domains,
            client_id,
            authentication,
            algorithm,
            domains,
            scopes,
            username_claim,
            groups_claim,
            asks_consent,
            groups,
            acr_values,
            just_in_time,
            external_id_is_subject,
            disabled,
        } = self.clone();
        let preset = match preset {
            Preset::Generic => PresetRow::Generic,
            Preset::Entra => PresetRow::Entra,
            Preset::Google => PresetRow::Google,
            Preset::Okta => PresetRow::Okta,
            Preset::Keycloak => PresetRow::Keycloak,
        };
        let authentication = match authentication {
            UpstreamAuthentication::PrivateKeyJwt(algorithm) => {
                AuthenticationRow::PrivateKeyJwt { algorithm }
            }
            UpstreamAuthentication::Certificate { certificate, sealed_key, next } => {
                let next =
                    next.map(|(certificate, sealed_key)| NextRow { certificate, sealed_key });
                AuthenticationRow::Certificate { certificate, sealed_key, next }
            }
            UpstreamAuthentication::SecretPost(sealed) => AuthenticationRow::SecretPost(sealed),
            UpstreamAuthentication::SecretBasic(sealed) => AuthenticationRow::SecretBasic(sealed),
        };
        UpstreamProviderRow {
            name,
            display_name,
            preset,
            issuer,
            tenants,
            hosted_domains,
            client_id,
            authentication,
            algorithm,
            domains,
            scopes,
            username_claim,
            groups_claim,
            asks_consent,
            groups,
            acr_values,
            just_in_time,
            external_id_is_subject,
            disabled,
        }
    }

    fn of_row(row: UpstreamProviderRow) -> Self {
        let UpstreamProviderRow {
            name,
            display_name,
            preset,
            issuer,
            tenants,
            hosted_domains,
            client_id,
            authentication,
            algorithm,
            domains,
            scopes,
            username_claim,
            groups_claim,
            asks_consent,
            groups,
            acr_values,
            just_in_time,
            external_id_is_subject,
            disabled,
        } = row;
        let preset = match preset {
            PresetRow::Generic => Preset::Generic,
            PresetRow::Entra => Preset::Entra,
            PresetRow::Google => Preset::Google,
            PresetRow::Okta => Preset::Okta,
            PresetRow::Keycloak => Preset::Keycloak,
        };
        let authentication = match authentication {
            AuthenticationRow::PrivateKeyJwt { algorithm } => {
                UpstreamAuthentication::PrivateKeyJwt(algorithm)
            }
            AuthenticationRow::Certificate { certificate, sealed_key, next } => {
                let next =
                    next.map(|NextRow { certificate, sealed_key }| (certificate, sealed_key));
                UpstreamAuthentication::Certificate { certificate, sealed_key, next }
            }
            AuthenticationRow::SecretPost(sealed) => UpstreamAuthentication::SecretPost(sealed),
            AuthenticationRow::SecretBasic(sealed) => UpstreamAuthentication::SecretBasic(sealed),
        };
        Self {
            name,
            display_name,
            preset,
            issuer,
            tenants,
            hosted_domains,
            client_id,
            authentication,
            algorithm,
            domains,
            scopes,
            username_claim,
            groups_claim,
            asks_consent,
            groups,
            acr_values,
            just_in_time,
            external_id_is_subject,
            disabled,
        }
    }
}
