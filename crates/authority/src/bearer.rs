//! The access token of a request to an endpoint of the authorization server itself.

use crate::authority::{Authority, Directory};
use axum::http::{header, request::Parts};
use passavant_proto::{jose::dpop, secret::Secret};
use passavant_store::{EntryOutcome, StoreError, UsedJti};

/// A token as it was presented.
pub struct Presented {
    scheme: String,
    /// The token.
    pub token: Secret,
}

/// The token of the one `Authorization` header.
pub fn presented(parts: &Parts) -> Option<Presented> {
    let mut headers = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(header), None) = (headers.next(), headers.next()) else { return None };
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    Some(Presented { scheme: scheme.to_owned(), token: Secret::new(token.trim()) })
}

impl Presented {
    /// Whether it was presented as a bearer token.
    pub fn is_bearer(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("bearer")
    }

    /// Whether it was presented as a bound token.
    pub fn is_dpop(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("dpop")
    }
}

/// Whether a token comes as it has to: one that is `bound` to a key with a proof of it for the endpoint at
/// `path`, which is used up (RFC 9449 section 7.1); any other one as a bearer token.
pub async fn is_proved<D: Directory>(
    authority: &Authority<D>,
    parts: &Parts,
    path: &str,
    presented: &Presented,
    bound: Option<&str>,
) -> Result<bool, StoreError> {
    let Some(bound) = bound else { return Ok(presented.is_bearer()) };
    let mut proofs = parts.headers.get_all("dpop").iter();
    let (Some(proof), None, true) = (proofs.next(), proofs.next(), presented.is_dpop()) else {
        return Ok(false);
    };
    let Ok(proof) = proof.to_str() else { return Ok(false) };
    let url = authority.issuer.endpoint(path);
    let method = parts.method.as_str();
    let access_token = Some(presented.token.expose());
    let now = authority.now();
    let Ok(proof) = dpop::verify(proof, dpop::Request { method, url: &url, access_token }, now)
    else {
        return Ok(false);
    };
    if proof.key_thumbprint != bound {
        return Ok(false);
    }
    let namespace = format!("dpop {}", proof.key_thumbprint);
    let jti = UsedJti { namespace, jti: proof.jti, forget_after: proof.forget_after };
    Ok(authority.store.remember_jti(jti, now).await? == EntryOutcome::Recorded)
}
