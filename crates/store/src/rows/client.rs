//! The stored form of a client.

use super::Stored;
use passavant_proto::{
    identifier::Resource,
    jose::jwk::Algorithm,
    oauth::client::{Client, ClientAuthentication, ClientKeys, SecretHash, SelfRegistered},
    ssf::Told,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[allow(clippy::struct_excessive_bools)] // as the client has them
#[derive(Serialize, Deserialize)]
pub struct ClientRow {
    id: String,
    name: String,
    authentication: AuthenticationRow,
    #[serde(default)]
    redirect_uris: Vec<String>,
    #[serde(default)]
    post_logout_redirect_uris: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backchannel_logout_uri: Option<String>,
    #[serde(default)]
    id_token_lifetime: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_token_signed_response_alg: Option<Algorithm>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pkce_optional: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    device_grant: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dpop_bound_access_tokens: bool,
    #[serde(default)]
    require_pushed_authorization_requests: bool,
    #[serde(default)]
    resources: Vec<Resource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    saml_entity_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signals: Option<ToldRow>,
    #[serde(default)]
    software: Option<String>,
    #[serde(default)]
    registered: Option<SelfRegisteredRow>,
    #[serde(default)]
    disabled: bool,
}

/// Every method has its own name, so that unknown members of one method never mix with another's.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AuthenticationRow {
    Secret(Vec<SecretHashRow>),
    PrivateKeyJwt {
        keys: KeysRow,
        #[serde(default)]
        algorithm: Algorithm,
    },
    Public,
}

#[derive(Serialize, Deserialize)]
struct SecretHashRow {
    hash: String,
    expires: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeysRow {
    Inline(Value),
    Fetched(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToldRow {
    ItsPeople,
    Everyone,
}

#[derive(Serialize, Deserialize)]
struct SelfRegisteredRow {
    at: Timestamp,
    #[serde(default)]
    used: bool,
}

impl Stored for Client {
    type Row = ClientRow;

    fn row(&self) -> ClientRow {
        let Self {
            id,
            name,
            authentication,
            redirect_uris,
            post_logout_redirect_uris,
            backchannel_logout_uri,
            id_token_lifetime,
            id_token_signed_response_alg,
            pkce_optional,
            device_grant,
            dpop_bound_access_tokens,
            require_pushed_authorization_requests,
            resources,
            saml_entity_id,
            signals,
            software,
            registered,
            disabled,
        } = self.clone();
        ClientRow {
            signals: signals.map(|told| match told {
                Told::ItsPeople => ToldRow::ItsPeople,
                Told::Everyone => ToldRow::Everyone,
            }),
            id,
            name,
            authentication: to_row(authentication),
            redirect_uris,
            post_logout_redirect_uris,
            backchannel_logout_uri,
            id_token_lifetime,
            id_token_signed_response_alg,
            pkce_optional,
            device_grant,
            dpop_bound_access_tokens,
            require_pushed_authorization_requests,
            resources,
            saml_entity_id,
            software,
            registered: registered
                .map(|SelfRegistered { at, used }| SelfRegisteredRow { at, used }),
            disabled,
        }
    }

    fn of_row(row: ClientRow) -> Self {
        let ClientRow {
            id,
            name,
            authentication,
            redirect_uris,
            post_logout_redirect_uris,
            backchannel_logout_uri,
            id_token_lifetime,
            id_token_signed_response_alg,
            pkce_optional,
            device_grant,
            dpop_bound_access_tokens,
            require_pushed_authorization_requests,
            resources,
            saml_entity_id,
            signals,
            software,
            registered,
            disabled,
        } = row;
        Self {
            signals: signals.map(|told| match told {
                ToldRow::ItsPeople => Told::ItsPeople,
                ToldRow::Everyone => Told::Everyone,
            }),
            id,
            name,
            authentication: of_row(authentication),
            redirect_uris,
            post_logout_redirect_uris,
            backchannel_logout_uri,
            id_token_lifetime,
            id_token_signed_response_alg,
            pkce_optional,
            device_grant,
            dpop_bound_access_tokens,
            require_pushed_authorization_requests,
            resources,
            saml_entity_id,
            software,
            registered: registered
                .map(|SelfRegisteredRow { at, used }| SelfRegistered { at, used }),
            disabled,
        }
    }
}

fn to_row(authentication: ClientAuthentication) -> AuthenticationRow {
    let secret = |SecretHash { hash, expires }| SecretHashRow { hash, expires };
    match authentication {
        ClientAuthentication::Secret(hashes) => {
            AuthenticationRow::Secret(hashes.into_iter().map(secret).collect())
        }
        ClientAuthentication::PrivateKeyJwt { keys, algorithm } => {
            let keys = match keys {
                ClientKeys::Inline(jwks) => KeysRow::Inline(jwks),
                ClientKeys::Fetched(url) => KeysRow::Fetched(url),
            };
            AuthenticationRow::PrivateKeyJwt { keys, algorithm }
        }
        ClientAuthentication::Public => AuthenticationRow::Public,
    }
}

fn of_row(row: AuthenticationRow) -> ClientAuthentication {
    let secret = |SecretHashRow { hash, expires }| SecretHash { hash, expires };
    match row {
        AuthenticationRow::Secret(hashes) => {
            ClientAuthentication::Secret(hashes.into_iter().map(secret).collect())
        }
        AuthenticationRow::PrivateKeyJwt { keys, algorithm } => {
            let keys = match keys {
                KeysRow::Inline(jwks) => ClientKeys::Inline(jwks),
                KeysRow::Fetched(url) => ClientKeys::Fetched(url),
            };
            ClientAuthentication::PrivateKeyJwt { keys, algorithm }
        }
        AuthenticationRow::Public => ClientAuthentication::Public,
    }
}
