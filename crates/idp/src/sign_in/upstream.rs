//! Sign-in at the company's own identity provider, in front of which this one stands: how this one is
//! registered there, and where browsers are sent. `callback` has their return, `still_there` asks
//! later on whether a person is still there.

mod callback;
mod saml;
mod still_there;

pub(crate) use callback::{callback, posted};
pub(crate) use saml::metadata;
pub(crate) use saml::{certificates_of, check as check_saml, in_turn, once};
pub(crate) use still_there::still_there;

use crate::{directory::IdpDirectory, state::Idp};
use axum::{
    body::Body,
    http::{Response, request::Parts},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use passavant_authority::{
    front_channel::{ReadRequest, upstream as there},
    passwords,
};
use passavant_outbound::{ClientProof, Registration, Returned, SignInError, SignInWishes};
use passavant_proto::{
    jose::jwk::{Algorithm, SigningKey},
    oauth::client::ENROLLED_CLIENT,
    oidc::authentication::{Authentication, CLASSES},
    oidc::upstream::{
        OpenIdUpstream, Preset, UpstreamAuthentication, UpstreamPerson, UpstreamProvider,
    },
    secret::Secret,
    time::Timestamp,
};
use passavant_store::{SealedAt, Told};
use std::{collections::BTreeSet, sync::Arc};

/// Our registration at an upstream.
pub(crate) fn registration<'a>(idp: &Idp, upstream: OpenIdUpstream<'a>) -> Registration<'a> {
    let open_id = upstream.open_id;
    let bare = || {
        let (_, bare) = open_id.issuer.as_str().split_once("://")?;
        Some(bare.to_owned())
    };
    Registration {
        issuer: &open_id.issuer,
        tenants: open_id.has_tenants().then_some(&open_id.tenants),
        // Google writes its issuer with and without the scheme.
        other_spelling: if upstream.preset == Preset::Google { bare() } else { None },
        client_id: &open_id.client_id,
        redirect_uri: return_address(idp, &upstream.name),
        algorithm: open_id.algorithm,
        announced_pkce: false,
    }
}

/// Where browsers come back to from an upstream: each one has an address of its own.
fn return_address(idp: &Idp, name: &str) -> String {
    idp.issuer().endpoint(&format!("/callback/{name}"))
}

/// What we prove ourselves with at an upstream.
pub(crate) enum Credential {
    Key(Arc<SigningKey>, bool),
    Certificate(Box<SigningKey>, Vec<u8>, bool),
    SecretPost(Secret),
    SecretBasic(Secret),
}

impl Credential {
    /// Unseals it.
    pub(crate) fn of(idp: &Idp, upstream: &UpstreamProvider) -> Result<Self, String> {
        let authority = &idp.0.authority;
        let sealing = &authority.context.sealing;
        let to_token_endpoint = upstream.preset.asserts_to_token_endpoint();
        let label = secret_label(&upstream.name);
        Ok(match &upstream.authentication {
            UpstreamAuthentication::PrivateKeyJwt(algorithm) => {
                Self::Key(authority.signing_as(*algorithm), to_token_endpoint)
            }
            UpstreamAuthentication::Certificate { certificate, sealed_key, .. } => {
                let der = sealing.open(&label, sealed_key)?;
                let key = SigningKey::from_pkcs8(Algorithm::PS256, &der);
                let key = key.map_err(|error| error.to_string())?;
                let certificate = STANDARD.decode(certificate).map_err(|e| e.to_string())?;
                Self::Certificate(Box::new(key), certificate, to_token_endpoint)
            }
            UpstreamAuthentication::SecretPost(sealed) => {
                Self::SecretPost(sealing.open_text(&label, sealed)?)
            }
            UpstreamAuthentication::SecretBasic(sealed) => {
                Self::SecretBasic(sealing.open_text(&label, sealed)?)
            }
        })
    }

    pub(crate) fn proof(&self) -> ClientProof<'_> {
        match self {
            Self::Key(key, to_token_endpoint) => ClientProof::Assertion {
                key,
                certificate: None,
                to_token_endpoint: *to_token_endpoint,
            },
            Self::Certificate(key, certificate, to_token_endpoint) => ClientProof::Assertion {
                key,
                certificate: Some(certificate),
                to_token_endpoint: *to_token_endpoint,
            },
            Self::SecretPost(secret) => ClientProof::SecretPost(secret),
            Self::SecretBasic(secret) => ClientProof::SecretBasic(secret),
        }
    }
}

/// What an upstream's secret or key is sealed for.
fn secret_label(name: &str) -> String {
    SealedAt::Upstream(name.to_owned()).label()
}

/// Redirects the browser to the upstream, for an authorization request.
pub(crate) async fn send(
    idp: &Idp,
    read: &ReadRequest<()>,
    upstream: &UpstreamProvider,
    hint: Option<&str>,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let request = &read.request;
    let classes = upstream.acr_values_there(request.classes());
    // Adding a computer asks for a new sign-in, and the person is asked afterwards in any case: an
    // upstream that does not tell when somebody signed in can be used for it, too.
    let enrols = request.client_id == ENROLLED_CLIENT;
    let sending = there::Sending {
        target: &read.target,
        fresh: request.fresh,
        untold_is_fresh: enrols,
        max_age: request.max_age,
    };
    let asked = Asked { hint, classes: &classes, prompt_login: request.fresh };
    send_to(idp, sending, upstream, asked, parts).await
}

/// What the upstream is asked for.
pub(crate) struct Asked<'a> {
    pub(crate) hint: Option<&'a str>,
    /// Classes, as the upstream calls them.
    pub(crate) classes: &'a [String],
    pub(crate) prompt_login: bool,
}

/// Redirects the browser to the upstream.
pub(crate) async fn send_to(
    idp: &Idp,
    sending: there::Sending<'_>,
    upstream: &UpstreamProvider,
    Asked { hint, classes, mut prompt_login }: Asked<'_>,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let Some(upstream) = upstream.open_id() else {
        let asked = Asked { hint, classes, prompt_login };
        return saml::send(idp, sending, upstream, &asked, parts);
    };
    let mut more = Vec::new();
    let mut acr_values = classes;
    let mut max_age = sending.max_age;
    let mut prompt = Vec::new();
    match upstream.preset {
        Preset::Entra => {
            // It knows authentication contexts, by the `claims` parameter, and no `max_age`.
            if let Some(class) = classes.first() {
                let wanted = serde_json::json!({
                    "id_token": {"acrs": {"essential": true, "value": class}}
                });
                more.push(("claims", wanted.to_string()));
            }
            acr_values = &[];
            prompt_login |= max_age.take().is_some();
        }
        Preset::Google => {
            more.push(("access_type", "offline".to_owned()));
            if let Some(domain) = upstream.open_id.hosted_domains.first() {
                let several = upstream.open_id.hosted_domains.len() > 1;
                more.push(("hd", if several { "*".to_owned() } else { domain.clone() }));
            }
            // It knows no `login`: the person at least chooses the account.
            prompt.extend(std::mem::take(&mut prompt_login).then_some("select_account"));
        }
        _ => {}
    }
    prompt.extend(prompt_login.then_some("login"));
    prompt.extend(upstream.open_id.asks_consent.then_some("consent"));
    let wishes =
        SignInWishes { login_hint: hint, prompt: &prompt, max_age, acr_values, more: &more };
    let registration = registration(idp, upstream);
    let place = (&registration, Some(upstream.name.as_str()));
    let scope = |offered: &[String]| upstream.scope(offered);
    there::send(idp, sending, place, scope, wishes, parts).await
}

fn session_label(sid: &str) -> String {
    SealedAt::Session(sid.to_owned()).label()
}

/// The claims of an ID token, with those that only the `UserInfo` endpoint tells.
async fn completed(
    idp: &Idp,
    upstream: OpenIdUpstream<'_>,
    mut returned: Returned,
) -> Result<Returned, SignInError> {
    let Some(claims) = returned.claims.take() else { return Ok(returned) };
    let subject = claims.required_id("sub", 255).map(str::to_owned);
    let wanted = upstream.preset.has_user_info() && upstream.lacks(&claims);
    let others = match (&returned.access_token, subject) {
        (Some(token), Ok(subject)) if wanted => {
            let relying_party = &idp.0.authority.context.relying_party;
            relying_party.user_info(&registration(idp, upstream), token, &subject).await?
        }
        _ => None,
    };
    returned.claims = Some(match others {
        Some(others) => {
            let names = upstream.completes(&claims);
            claims.completed(others, &names)
        }
        None => claims,
    });
    Ok(returned)
}

/// The user name that a new person gets, if one was told that they may have.
pub(crate) fn username_for(
    directory: &IdpDirectory,
    upstream: &UpstreamProvider,
    person: &UpstreamPerson,
) -> Option<String> {
    let username = person.username.as_deref().map(passwords::normal_username);
    let username = username.filter(|name| !matches!(name.as_str(), "" | "." | ".."));
    // An address of another upstream's people is not to be had here.
    let foreign = |name: &str| {
        let mut all = directory.all_upstreams();
        all.any(|other| other.name != upstream.name && other.takes(name))
            || (name.contains('@') && directory.has_unreadable_upstreams())
    };
    username.filter(|name| upstream.takes(name) || !foreign(name))
}

/// What is written at the person's record. An address counts as verified only in the upstream's own
/// domains: accounts elsewhere are found by it.
pub(crate) fn told(
    upstream: &UpstreamProvider,
    person: &UpstreamPerson,
    groups: Option<BTreeSet<String>>,
    asked_at: Timestamp,
) -> Told {
    let own = person.email.as_deref().is_some_and(|email| upstream.takes(email));
    Told {
        asked_at,
        email: person.email.clone(),
        email_verified: person.email_verified && own,
        display_name: person.display_name.clone(),
        given_name: person.given_name.clone(),
        family_name: person.family_name.clone(),
        groups: groups.map(|groups| (upstream.decides_on(), groups)),
        saml_subject: person.saml_subject.clone(),
    }
}

/// Whether a sign-in at an upstream could reach what a request wishes and this one does not. A class
/// that is merely wished for, and that no upstream is said to reach, is not worth a page each time.
pub(crate) fn could_do_more(
    directory: &IdpDirectory,
    read: &ReadRequest<()>,
    held: &Authentication,
) -> bool {
    let request = &read.request;
    let own = |classes: &[String]| {
        classes
            .iter()
            .any(|class| CLASSES.iter().any(|(own, short)| class == own || class == short))
    };
    if !request.is_met_by(&held.acr) {
        return own(request.classes()) || directory.upstreams().next().is_some();
    }
    let mut meant = directory.upstreams().flat_map(|upstream| upstream.acr_values.values());
    let reached = own(&request.acr_values) || meant.any(|class| request.acr_values.contains(class));
    request.wishes_more_than(&held.acr) && reached
}
