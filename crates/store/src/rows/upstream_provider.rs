//! The stored form of an identity provider at which the company's people sign in.

use super::Stored;
use passavant_proto::{
    identifier::{Issuer, SubjectIssuer},
    jose::jwk::Algorithm,
    oidc::upstream::{
        OpenIdProvider, Preset, UpstreamAuthentication, UpstreamProtocol, UpstreamProvider,
    },
    saml::SamlProvider,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One of OpenID Connect has its members beside the others; one of SAML has `saml` instead, so that
/// versions that do not know it miss the issuer, and use the record for nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Members", into = "Members")]
pub struct UpstreamProviderRow(Box<UpstreamProvider>);

#[derive(Serialize, Deserialize)]
struct Members {
    name: String,
    display_name: String,
    #[serde(default)]
    preset: PresetRow,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    saml: Option<SamlRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<Issuer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenants: Option<BTreeSet<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hosted_domains: Option<BTreeSet<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    authentication: AuthenticationRow,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    algorithm: Option<Algorithm>,
    #[serde(default)]
    domains: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scopes: Option<BTreeSet<String>>,
    #[serde(default)]
    username_claim: Option<String>,
    #[serde(default)]
    groups_claim: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asks_consent: Option<bool>,
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

#[derive(Serialize, Deserialize)]
struct SamlRow {
    entity_id: SubjectIssuer,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redirect: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    post: Option<String>,
    certificates: Vec<String>,
    #[serde(default)]
    sign_requests: bool,
    name_id_format: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject_attribute: Option<String>,
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
        UpstreamProviderRow(Box::new(self.clone()))
    }

    fn of_row(row: UpstreamProviderRow) -> Self {
        *row.0
    }
}

impl From<UpstreamProviderRow> for Members {
    fn from(row: UpstreamProviderRow) -> Self {
        let UpstreamProvider {
            name,
            display_name,
            preset,
            protocol,
            authentication,
            domains,
            username_claim,
            groups_claim,
            groups,
            acr_values,
            just_in_time,
            external_id_is_subject,
            disabled,
        } = *row.0;
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
        let members = Self {
            name,
            display_name,
            preset,
            saml: None,
            issuer: None,
            tenants: None,
            hosted_domains: None,
            client_id: None,
            authentication,
            algorithm: None,
            domains,
            scopes: None,
            username_claim,
            groups_claim,
            asks_consent: None,
            groups,
            acr_values,
            just_in_time,
            external_id_is_subject,
            disabled,
        };
        match protocol {
            UpstreamProtocol::OpenId(OpenIdProvider {
                issuer,
                tenants,
                hosted_domains,
                client_id,
                algorithm,
                scopes,
                asks_consent,
            }) => Self {
                issuer: Some(issuer),
                tenants: Some(tenants),
                hosted_domains: Some(hosted_domains),
                client_id: Some(client_id),
                algorithm: Some(algorithm),
                scopes: Some(scopes),
                asks_consent: Some(asks_consent),
                ..members
            },
            UpstreamProtocol::Saml(SamlProvider {
                entity_id,
                redirect,
                post,
                certificates,
                sign_requests,
                name_id_format,
                subject_attribute,
            }) => Self {
                saml: Some(SamlRow {
                    entity_id,
                    redirect,
                    post,
                    certificates,
                    sign_requests,
                    name_id_format,
                    subject_attribute,
                }),
                ..members
            },
        }
    }
}

impl TryFrom<Members> for UpstreamProviderRow {
    type Error = String;

    fn try_from(members: Members) -> Result<Self, String> {
        let Members {
            name,
            display_name,
            preset,
            saml,
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
        } = members;
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
        let missing = |member: &str| format!("missing field `{member}`");
        let protocol = match saml {
            None => UpstreamProtocol::OpenId(OpenIdProvider {
                issuer: issuer.ok_or_else(|| missing("issuer"))?,
                tenants: tenants.unwrap_or_default(),
                hosted_domains: hosted_domains.unwrap_or_default(),
                client_id: client_id.ok_or_else(|| missing("client_id"))?,
                algorithm: algorithm.ok_or_else(|| missing("algorithm"))?,
                scopes: scopes.unwrap_or_default(),
                asks_consent: asks_consent.unwrap_or_default(),
            }),
            Some(SamlRow {
                entity_id,
                redirect,
                post,
                certificates,
                sign_requests,
                name_id_format,
                subject_attribute,
            }) => UpstreamProtocol::Saml(SamlProvider {
                entity_id,
                redirect,
                post,
                certificates,
                sign_requests,
                name_id_format,
                subject_attribute,
            }),
        };
        Ok(Self(Box::new(UpstreamProvider {
            name,
            display_name,
            preset,
            protocol,
            authentication,
            domains,
            username_claim,
            groups_claim,
            groups,
            acr_values,
            just_in_time,
            external_id_is_subject,
            disabled,
        })))
    }
}
