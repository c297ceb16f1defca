//! What issuing an access token of a RAS leaves: the recorded grant, and the response.

use super::state::Ras;
use passavant_authority::token_endpoint::TokenAnswer;
use passavant_proto::{
    identifier::Resource, oauth::access_token::AccessTokenClaims, xaa::id_jag::OneOrMany,
};
use passavant_store::{Grant, TokenKind};

/// The grant to record: the issuer it rests on (`party`), and what the token was issued for
/// (`lineage`).
pub(super) fn grant(claims: &AccessTokenClaims, party: String, lineage: &str) -> Grant {
    Grant {
        jti: claims.jti.clone(),
        kind: TokenKind::AccessToken,
        user_id: claims.sub.clone(),
        client_id: claims.client_id.clone(),
        party,
        lineage: lineage.to_owned(),
        expires_at: claims.exp,
        opens: None,
    }
}

/// Signs the token and makes the response. Call it only after the grant was recorded. `resource` as
/// the client wrote it.
pub(super) fn answer(
    ras: &Ras,
    claims: AccessTokenClaims,
    resource: String,
    refresh_token: Option<String>,
) -> TokenAnswer {
    let snapshot = ras.0.authority.snapshot();
    let chosen = match &claims.aud {
        OneOrMany::One(named) => Resource::parse(named).ok(),
        OneOrMany::Many(_) => None,
    };
    let chosen = chosen.and_then(|named| snapshot.directory.live_resource(&named));
    let chosen = chosen.and_then(|governed| governed.access_token_signing_alg);
    TokenAnswer {
        access_token: claims.sign(&snapshot.keys.signing_as(chosen)),
        token_type: if claims.cnf.is_some() { "DPoP" } else { "Bearer" },
        expires_in: claims.exp.since(claims.iat),
        issued_token_type: None,
        scope: claims.scope,
        resource: Some(OneOrMany::One(resource)),
        id_token: None,
        refresh_token,
    }
}
