//! Token exchange at the IdP: a sign-in becomes an ID-JAG (ID-JAG draft section 4.3, RFC 8693).

use crate::{
    TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_JAG, TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_REFRESH_TOKEN,
    identifier::{Issuer, Resource},
    oauth::form::Form,
    oauth::scope::Scopes,
    oidc::authentication::Authentication,
    policy::{Permit, Person, Policy, Question, ReleasedClaim, SubIdFormat},
    refusal::Refusal,
    saml::SamlSubject,
    secret::Secret,
    time::Timestamp,
    xaa::id_jag::{self, Confirmation, IdJagClaims, OneOrMany},
};
use std::collections::BTreeMap;

/// The kind of a subject token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)] // as RFC 8693 names them
pub enum SubjectTokenType {
    /// An ID token of ours.
    IdToken,
    /// A refresh token of ours (ID-JAG draft section 4.3.4).
    RefreshToken,
    /// An access token that was issued for an ID-JAG of ours, presented by the MCP server that it
    /// is for: used by a gateway that needs a token for the MCP server behind it.
    AccessToken,
}

/// A well-formed request.
#[derive(Clone, Debug)]
pub struct TokenExchange {
    /// Kind of `subject_token`.
    pub subject_token_type: SubjectTokenType,
    /// The presented token.
    pub subject_token: Secret,
    /// `audience` as requested.
    pub audience: String,
    /// `resource` values as written, all distinct.
    pub resources: Vec<Resource>,
    /// `scope`; `None` for all available scopes.
    pub scopes: Option<Scopes>,
}

impl TokenExchange {
    /// Parses the parameters of section 4.3 of the ID-JAG draft, and rejects those that have no
    /// meaning here.
    pub fn parse(form: &Form) -> Result<Self, Refusal> {
        let requested = form.required("requested_token_type")?;
        let audience = form.required("audience")?.to_owned();
        let subject_token = Secret::new(form.required("subject_token")?);
        let subject_token_type = form.required("subject_token_type")?;
        if requested != TOKEN_TYPE_ID_JAG {
            return Err(Refusal::RequestedTokenType);
        }
        let subject_token_type = match subject_token_type {
            TOKEN_TYPE_ID_TOKEN => SubjectTokenType::IdToken,
            TOKEN_TYPE_REFRESH_TOKEN => SubjectTokenType::RefreshToken,
            TOKEN_TYPE_ACCESS_TOKEN => SubjectTokenType::AccessToken,
            _ => return Err(Refusal::SubjectTokenType),
        };
        if form.mentions("actor_token") || form.mentions("actor_token_type") {
            return Err(Refusal::ActorToken);
        }
        if form.mentions("authorization_details") {
            return Err(Refusal::AuthorizationDetails);
        }
        Ok(Self {
            subject_token_type,
            subject_token,
            audience,
            resources: parse_resources(form)?,
            scopes: parse_scope(form)?,
        })
    }
}

/// The distinct `resource` parameters of a form.
pub fn parse_resources(form: &Form) -> Result<Vec<Resource>, Refusal> {
    let mut resources = Vec::new();
    for text in form.all("resource") {
        let resource = Resource::parse(text).map_err(|_| Refusal::ResourceMalformed)?;
        if !resources.contains(&resource) {
            resources.push(resource);
        }
    }
    Ok(resources)
}

/// The `scope` parameter of a form; `None` if it is absent or blank.
pub fn parse_scope(form: &Form) -> Result<Option<Scopes>, Refusal> {
    form.optional("scope")
        .map(|text| Scopes::parse(text).ok_or(Refusal::ScopeMalformed))
        .transpose()
}

/// The verified sign-in behind a subject token.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedSubject<'a> {
    /// The person.
    pub person: Person<'a>,
    /// Their address, for audiences it is released to.
    pub email: Option<&'a str>,
    /// How and when the person signed in.
    pub authentication: &'a Authentication,
    /// Their user name.
    pub username: &'a str,
    /// What else the directory says of them.
    pub attributes: &'a BTreeMap<String, String>,
    /// Their name identifier, if they sign in at an upstream of SAML.
    pub saml_subject: Option<&'a SamlSubject>,
}

impl VerifiedSubject<'_> {
    /// What an audience knows them by, if it is known here: `email`, `username`, or an attribute.
    fn known_as(&self, what: &str) -> Option<String> {
        match what {
            "email" => self.email.map(str::to_owned),
            "username" => Some(self.username.to_owned()),
            attribute => self.attributes.get(attribute).cloned(),
        }
    }
}

/// The client of an exchange: its id in connections, and the URL of its metadata document if that
/// is its client id.
#[derive(Clone, Copy, Debug)]
pub struct ExchangingClient<'a> {
    /// Its `idp_client_id` in connections.
    pub idp_client_id: &'a str,
    /// Its own client id, if that is a URL.
    pub document: Option<&'a str>,
}

/// Decides an exchange with the policy, which contains the draft's rules on audience, resource and
/// scope (ID-JAG draft sections 4.3, 5, 9.2 and 9.3).
pub fn authorize(
    request: &TokenExchange,
    subject: VerifiedSubject<'_>,
    client: ExchangingClient<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Result<Permit, Refusal> {
    let question = Question {
        person: subject.person,
        idp_client_id: client.idp_client_id,
        document: client.document,
        authentication: subject.authentication,
        audience: &request.audience,
        resources: &request.resources,
        scopes: request.scopes.as_ref(),
        now,
    };
    policy.decide(&question).map_err(Refusal::Denied)
}

/// The claims of the ID-JAG that a permit allows: about the person only `sub`, unless more is
/// released to this audience (MCP Enterprise-Managed Authorization, section 7.4.3).
pub fn id_jag(
    permit: &Permit,
    subject: VerifiedSubject<'_>,
    issuer: &Issuer,
    tenant: Option<&str>,
    key_thumbprint: Option<String>,
    jti: String,
    now: Timestamp,
) -> IdJagClaims {
    let released = |claim| permit.release.contains(&claim);
    let authentication = subject.authentication;
    IdJagClaims {
        iss: issuer.clone(),
        sub: subject.person.id.to_owned(),
        aud: permit.audience.clone(),
        client_id: permit.ras_client_id.clone(),
        jti,
        exp: now.plus(id_jag::LIFETIME),
        iat: now,
        resource: OneOrMany::of(&permit.resources),
        scope: (!permit.scopes.is_empty()).then(|| permit.scopes.to_string()),
        tenant: tenant.map(str::to_owned),
        aud_tenant: permit.aud_tenant.clone(),
        aud_sub: permit.aud_sub.as_deref().and_then(|what| subject.known_as(what)),
        sub_id: permit.sub_id.and_then(|format| match format {
            SubIdFormat::SamlNameId => subject.saml_subject.map(SamlSubject::sub_id),
        }),
        auth_time: released(ReleasedClaim::AuthTime)
            .then_some(authentication.auth_time)
            .filter(|at| *at != Timestamp(0)),
        // What nobody said is left out: the person may have signed in at an upstream.
        acr: released(ReleasedClaim::Acr)
            .then(|| authentication.acr.clone())
            .filter(|acr| !acr.is_empty()),
        amr: released(ReleasedClaim::Amr)
            .then(|| authentication.amr.clone())
            .filter(|amr| !amr.is_empty()),
        email: subject.email.filter(|_| released(ReleasedClaim::Email)).map(str::to_owned),
        cnf: key_thumbprint.map(|jkt| Confirmation { jkt }),
    }
}
