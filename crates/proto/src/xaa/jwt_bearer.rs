//! Redemption at the RAS: an ID-JAG becomes an access token (ID-JAG draft section 4.4, RFC 7523).

use crate::{
    identifier::Resource,
    oauth::access_token,
    oauth::client::GovernedResource,
    oauth::form::Form,
    oauth::scope::Scopes,
    refusal::Refusal,
    secret::Secret,
    xaa::id_jag::IdJag,
    xaa::token_exchange::{parse_resources, parse_scope},
};

/// A well-formed request.
#[derive(Clone, Debug)]
pub struct JwtBearer {
    /// The ID-JAG.
    pub assertion: Secret,
    /// `resource`: a choice from those in the ID-JAG, if it has several.
    pub resources: Vec<Resource>,
    /// `scope`; `None` for all scopes of the ID-JAG.
    pub scopes: Option<Scopes>,
}

impl JwtBearer {
    /// Reads the parameters of RFC 7523 section 2.1 with `resource` and `scope`.
    pub fn parse(form: &Form) -> Result<Self, Refusal> {
        let assertion = Secret::new(form.required("assertion")?);
        if form.mentions("authorization_details") {
            return Err(Refusal::AuthorizationDetails);
        }
        Ok(Self { assertion, resources: parse_resources(form)?, scopes: parse_scope(form)? })
    }
}

/// What a verified ID-JAG is redeemed for.
#[derive(Clone, Debug)]
pub struct Redemption<'a> {
    /// The MCP server: `aud` of the access token.
    pub governed: &'a GovernedResource,
    /// `resource` of the response, in the spelling of the ID-JAG; `None` if it had none.
    pub spelled: Option<Resource>,
    /// The scopes.
    pub scopes: Scopes,
    /// Lifetime of the access token in seconds.
    pub lifetime: i64,
    /// Key the token is bound to.
    pub key_thumbprint: Option<String>,
}

/// Applies the draft's rules on resource, scope and binding, in this order (ID-JAG draft sections
/// 4.4 and 9.9.1.2). `governed` are the enabled resources of this RAS.
pub fn authorize<'a>(
    request: &JwtBearer,
    id_jag: &IdJag,
    proof_key: Option<&str>,
    governed: &'a [GovernedResource],
) -> Result<Redemption<'a>, Refusal> {
    let ours = |r: &Resource| governed.iter().find(|g| g.resource == *r && !g.disabled);
    let (governed, spelled) = match id_jag.resources() {
        [] => match governed {
            [one] if !one.disabled => (one, None),
            _ => return Err(Refusal::ResourceAbsent),
        },
        claimed => {
            if !claimed.iter().all(|r| ours(r).is_some()) {
                return Err(Refusal::ResourceNotGoverned);
            }
            if !request.resources.iter().all(|r| claimed.contains(r)) {
                return Err(Refusal::ResourceNotInIdJag);
            }
            let chosen =
                if request.resources.is_empty() { claimed } else { request.resources.as_slice() };
            let [one] = chosen else { return Err(Refusal::ResourceAmbiguous) };
            let spelled = claimed.iter().find(|r| *r == one).unwrap_or(one);
            (ours(one).ok_or(Refusal::ResourceNotGoverned)?, Some(spelled.clone()))
        }
    };
    if spelled.is_none() && request.resources.iter().any(|r| *r != governed.resource) {
        return Err(Refusal::ResourceNotInIdJag);
    }
    let carried = id_jag.scopes().unwrap_or(&governed.default_scopes);
    let mut scopes = carried.intersection(&governed.scopes);
    if let Some(wanted) = &request.scopes {
        scopes = scopes.intersection(wanted);
    }
    let asked = request.scopes.as_ref().is_some_and(|s| !s.is_empty())
        || id_jag.scopes().is_some_and(|s| !s.is_empty());
    if asked && scopes.is_empty() {
        return Err(Refusal::ScopeEmpty);
    }
    let key_thumbprint = match (id_jag.key_thumbprint(), proof_key) {
        (Some(_), None) => return Err(Refusal::ProofMissing),
        (Some(bound), Some(proof)) if bound != proof => return Err(Refusal::ProofKey),
        (Some(bound), Some(_)) => Some(bound.to_owned()),
        (None, _) if governed.require_dpop => return Err(Refusal::BindingRequired),
        (None, proof) => proof.map(str::to_owned),
    };
    let lifetime = governed
        .access_token_lifetime
        .unwrap_or(access_token::LIFETIME)
        .clamp(1, access_token::LONGEST_LIFETIME);
    Ok(Redemption { governed, spelled, scopes, lifetime, key_thumbprint })
}
