//! Client ID Metadata Documents: a client whose id is the URL of its own metadata
//! (draft-ietf-oauth-client-id-metadata-document; MCP Enterprise-Managed Authorization, section 5).
//! These are the rules for URL and content; `passavant-outbound` fetches the documents.

use crate::{
    GRANT_JWT_BEARER, GRANT_PROFILE_ID_JAG, GRANT_TOKEN_EXCHANGE,
    identifier::Resource,
    jose::claims::Claims,
    jose::jwk::{Algorithm, KeySet},
    oauth::client::{Client, ClientAuthentication, ClientKeys},
    oauth::redirect_uri,
};
use serde_json::{Value, json};
use url::Url;

/// Largest document that is read, in bytes (Client ID Metadata Document draft section 6.6).
pub const LARGEST: usize = 5 * 1024;

/// Why a URL or its document is not accepted as a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientDocumentError {
    /// The URL breaks a rule of section 3 of the Client ID Metadata Document draft.
    #[error(
        "the client id is not an https URL with a path, free of dot segments, fragment and user"
    )]
    Url,
    /// The document is not a JSON object with distinct members, or is too large.
    #[error("the document is not one JSON object with distinct members, 5120 bytes at most")]
    NotObject,
    /// The `client_id` in it is not the document's URL, byte for byte (Client ID Metadata Document
    /// draft section 4.1).
    #[error("its `client_id` is not the URL it was fetched from, byte for byte")]
    ClientId,
    /// A member has the wrong type or is missing.
    #[error("its `{0}` is missing or has the wrong form")]
    Member(&'static str),
    /// It contains a secret, or a method that needs one (Client ID Metadata Document draft section
    /// 4.1).
    #[error("it carries a secret or a secret-based authentication method, which anyone can read")]
    Secret,
    /// Its authentication method is neither `private_key_jwt` nor, for a client with redirect URIs,
    /// `none`.
    #[error("its `token_endpoint_auth_method` is neither private_key_jwt nor none")]
    Method,
    /// Its keys cannot be used.
    #[error("its keys cannot be used: {0}")]
    Keys(String),
}

/// The URL of a document, checked (Client ID Metadata Document draft section 3). Plain http is
/// accepted on loopback only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DocumentUrl {
    text: String,
    origin: String,
}

impl DocumentUrl {
    /// Applies the rules of section 3 of the Client ID Metadata Document draft to the text itself:
    /// nothing is repaired.
    pub fn parse(text: &str) -> Result<Self, ClientDocumentError> {
        // As strict as for resources: printable ASCII, https (http on loopback), no fragment, no
        // user info.
        Resource::parse(text).map_err(|_| ClientDocumentError::Url)?;
        let url = Url::parse(text).map_err(|_| ClientDocumentError::Url)?;
        // A URL that the parser would rewrite (dot segments, an upper-case host, a default port, an
        // IDN) is ambiguous as an identifier.
        if url.as_str() != text || url.path().len() < 2 {
            return Err(ClientDocumentError::Url);
        }
        let dotted = |segment: &str| {
            let decoded = segment.to_ascii_lowercase().replace("%2e", ".");
            decoded == "." || decoded == ".."
        };
        // Sequences that some server may read as an additional slash are ambiguous, too.
        let path = url.path().to_ascii_lowercase();
        let slashed = ["//", "%2f", "%5c", "%00"].iter().any(|odd| path.contains(odd));
        if path.split('/').any(dotted) || slashed {
            return Err(ClientDocumentError::Url);
        }
        Ok(Self { text: text.to_owned(), origin: url.origin().ascii_serialization() })
    }

    /// The URL, which is the client id.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

/// Whether `text` can be listed as an origin of documents: `https://host[:port]`, or `http` on
/// loopback.
pub fn is_origin(text: &str) -> bool {
    !text.contains('*')
        && Resource::parse(text).is_ok()
        && Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text)
}

/// Parses a fetched document as a client of this authorization server (Client ID Metadata Document
/// draft section 4.1). Unknown members are ignored. The result authenticates with
/// `private_key_jwt`, or is a public client with a redirect URI, which gets only what a person
/// consents to.
pub fn read(url: &DocumentUrl, body: &[u8]) -> Result<Client, ClientDocumentError> {
    use ClientDocumentError::{Keys, Member, Method, NotObject, Secret};
    if body.len() > LARGEST {
        return Err(NotObject);
    }
    let document = Claims::parse(body).map_err(|_| NotObject)?;
    let text = |name: &'static str| document.optional_str(name).map_err(|_| Member(name));
    if text("client_id")?.ok_or(Member("client_id"))? != url.as_str() {
        return Err(ClientDocumentError::ClientId);
    }
    if document.value("client_secret").is_some()
        || document.value("client_secret_expires_at").is_some()
    {
        return Err(Secret);
    }
    let public = match text("token_endpoint_auth_method")? {
        Some("private_key_jwt") => false,
        Some("none") => true,
        Some(secret) if secret.starts_with("client_secret") => return Err(Secret),
        _ => return Err(Method),
    };
    let name = text("client_name")?.unwrap_or(url.as_str());
    let redirect_uris = strings(&document, "redirect_uris")?;
    if redirect_uris.iter().any(|uri| redirect_uri::check_for(public, uri).is_err()) {
        return Err(Member("redirect_uris"));
    }
    let bound = document.optional_bool("dpop_bound_access_tokens");
    let dpop_bound_access_tokens =
        bound.map_err(|_| Member("dpop_bound_access_tokens"))?.unwrap_or_default();
    check_grants(&document)?;
    if public {
        if redirect_uris.is_empty() {
            return Err(Member("redirect_uris"));
        }
        return Ok(Client {
            id: url.as_str().to_owned(),
            name: name.to_owned(),
            authentication: ClientAuthentication::Public,
            redirect_uris,
            dpop_bound_access_tokens,
            ..Client::default()
        });
    }
    let keys = match (document.value("jwks"), text("jwks_uri")?) {
        (Some(jwks), None) => ClientKeys::Inline(jwks.clone()),
        // A URL elsewhere could direct our request anywhere; one at the document's own origin
        // reaches nothing new.
        (None, Some(uri)) => match DocumentUrl::parse(uri) {
            Ok(uri) if uri.origin() == url.origin() => ClientKeys::Fetched(uri.text),
            _ => return Err(Member("jwks_uri")),
        },
        _ => return Err(Member("jwks")),
    };
    let named = text("token_endpoint_auth_signing_alg")?;
    let algorithm = match named {
        Some(named) => Algorithm::ALL
            .into_iter()
            .find(|a| a.name() == named)
            .ok_or(Member("token_endpoint_auth_signing_alg"))?,
        None => algorithm_of(&keys),
    };
    if let ClientKeys::Inline(jwks) = &keys {
        KeySet::parse(jwks.to_string().as_bytes(), algorithm).map_err(|e| Keys(e.to_string()))?;
    }
    Ok(Client {
        id: url.as_str().to_owned(),
        name: name.to_owned(),
        authentication: ClientAuthentication::PrivateKeyJwt { keys, algorithm },
        redirect_uris,
        dpop_bound_access_tokens,
        ..Client::default()
    })
}

/// A client with grant profiles has to list their grant types, too (ID-JAG draft section 8).
fn check_grants(document: &Claims) -> Result<(), ClientDocumentError> {
    let profiles = strings(document, "authorization_grant_profiles_supported")?;
    let grants = strings(document, "grant_types")?;
    let lists = |grant: &str| grants.iter().any(|held| held == grant);
    if profiles.iter().any(|p| p == GRANT_PROFILE_ID_JAG)
        && !(lists(GRANT_TOKEN_EXCHANGE) && lists(GRANT_JWT_BEARER))
    {
        return Err(ClientDocumentError::Member("grant_types"));
    }
    Ok(())
}

fn strings(document: &Claims, name: &'static str) -> Result<Vec<String>, ClientDocumentError> {
    match document.value(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= 100 => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or(ClientDocumentError::Member(name)),
        Some(_) => Err(ClientDocumentError::Member(name)),
    }
}

/// The algorithm of the first key, if the document does not name one.
fn algorithm_of(keys: &ClientKeys) -> Algorithm {
    let ClientKeys::Inline(jwks) = keys else { return Algorithm::default() };
    let first = jwks.get("keys").and_then(|keys| keys.get(0));
    let text = |name: &str| first.and_then(|key| key.get(name)).and_then(Value::as_str);
    let named = text("alg").and_then(|alg| Algorithm::ALL.into_iter().find(|a| a.name() == alg));
    named.unwrap_or(match text("kty") {
        Some("OKP") => Algorithm::EdDSA,
        Some("RSA") => Algorithm::RS256,
        _ => Algorithm::ES256,
    })
}

/// Path of installations below the IdP's issuer: the URL of each is its client id.
pub const INSTALLATIONS: &str = "/installations";

/// Path of redirect URIs for consents at other authorization servers: never that of the person's
/// own sign-in.
pub const CONSENT_PATH: &str = "/consent";
/// Redirect URIs of consents.
pub const CONSENT_REDIRECTS: [&str; 3] =
    ["http://127.0.0.1/consent", "http://[::1]/consent", "http://localhost/consent"];
/// The document of an enrolled Passavant installation: it contains the keys, and nothing about the
/// person (ID-JAG draft section 8).
pub fn of_installation(url: &str, public_jwk: &Value, algorithm: Algorithm) -> Value {
    let redirect_uris = [redirect_uri::LOOPBACK_REDIRECTS, CONSENT_REDIRECTS].concat();
    json!({
        "client_id": url,
        "client_name": "Passavant",
        "redirect_uris": redirect_uris,
        "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token", GRANT_TOKEN_EXCHANGE, GRANT_JWT_BEARER],
        "authorization_grant_profiles_supported": [GRANT_PROFILE_ID_JAG],
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": algorithm.name(),
        "jwks": {"keys": [public_jwk]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://idp.example/installations/a";

    fn good() -> Value {
        let x = "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY";
        let y = "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU";
        of_installation(
            URL,
            &json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k", "alg": "ES256"}),
            Algorithm::ES256,
        )
    }

    fn read_value(value: &Value) -> Result<Client, ClientDocumentError> {
        read(&DocumentUrl::parse(URL).unwrap(), value.to_string().as_bytes())
    }

    #[test]
    fn a_client_id_is_an_unambiguous_https_url_with_a_path() {
        for bad in [
            "http://idp.example/c",
            "https://idp.example",
            "https://idp.example/",
            "https://idp.example/c#f",
            "https://u:p@idp.example/c",
            "https://@idp.example/c",
            "https://idp.example/a/../c",
            "https://idp.example/./c",
            "https://idp.example/%2e%2e/c",
            "https://idp.example/%2E/c",
            "https://idp.example/a b",
            "https://idp.example\\c",
            "https://idp.example/\u{7}c",
            "https:///c",
            "https:/idp.example/c",
            "HTTPS://idp.example/c",
            "https://IDP.example/c",
            "https://idp.example:443/c",
            "https://idp.example//c",
            "https://idp.example/installations/..%2Fc",
            "https://idp.example/a%5cc",
            "https://xn--80ak6aa92e.example/ä",
            "https://аpple.example/c",
            "javascript:alert(1)",
        ] {
            assert_eq!(DocumentUrl::parse(bad), Err(ClientDocumentError::Url), "{bad}");
        }
        for good in
            ["https://idp.example/c", "https://idp.example:8443/c?v=1", "http://127.0.0.1:1/c"]
        {
            assert_eq!(DocumentUrl::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_document_names_itself_and_carries_no_secret() {
        use ClientDocumentError as E;
        assert_eq!(read_value(&good()).unwrap().id, URL);
        for (member, value, expected) in [
            ("client_id", json!("https://idp.example/installations/a/"), E::ClientId),
            ("client_id", json!("https://IDP.example/installations/a"), E::ClientId),
            ("client_id", json!(7), E::Member("client_id")),
            ("client_secret", json!("s"), E::Secret),
            ("client_secret_expires_at", json!(0), E::Secret),
            ("token_endpoint_auth_method", json!("client_secret_basic"), E::Secret),
            ("token_endpoint_auth_method", json!("tls_client_auth"), E::Method),
            ("token_endpoint_auth_method", Value::Null, E::Member("token_endpoint_auth_method")),
            (
                "token_endpoint_auth_signing_alg",
                json!("HS256"),
                E::Member("token_endpoint_auth_signing_alg"),
            ),
            ("redirect_uris", json!(["javascript:alert(1)"]), E::Member("redirect_uris")),
            ("redirect_uris", json!("https://a.example/cb"), E::Member("redirect_uris")),
            ("grant_types", json!(["authorization_code"]), E::Member("grant_types")),
            ("jwks_uri", json!("https://idp.example/jwks"), E::Member("jwks")),
        ] {
            let mut changed = good();
            changed[member] = value;
            assert_eq!(read_value(&changed).unwrap_err(), expected, "{member}");
        }
        let mut private = good();
        private["jwks"]["keys"][0]["d"] = json!("x");
        assert!(matches!(read_value(&private), Err(E::Keys(_))), "a private key");
        let mut remote = good();
        remote.as_object_mut().unwrap().remove("jwks");
        remote["jwks_uri"] = json!("https://elsewhere.example/jwks");
        assert_eq!(read_value(&remote).unwrap_err(), E::Member("jwks_uri"));
        remote["jwks_uri"] = json!("https://idp.example/jwks");
        assert!(read_value(&remote).is_ok());
        let url = DocumentUrl::parse(URL).unwrap();
        let twice =
            good().to_string().replace("{\"authorization", "{\"client_id\":\"x\",\"authorization");
        assert_eq!(read(&url, twice.as_bytes()).unwrap_err(), E::NotObject);
        let mut large = good();
        large["note"] = json!("x".repeat(LARGEST));
        assert_eq!(read_value(&large).unwrap_err(), E::NotObject, "a document that is too large");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port_alone() {
        for good in ["https://idp.example", "https://idp.example:8443", "http://localhost:7401"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "idp.example",
            "https://idp.example/",
            "https://idp.example/x",
            "http://idp.example",
            "https://*.example",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
