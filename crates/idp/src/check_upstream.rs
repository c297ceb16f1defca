//! Looks at every leg of an upstream, and says who has to change what. Nothing is signed in: the
//! upstream is asked as a browser and as this server would ask it.

use crate::{
    sign_in::upstream::{Credential, check_saml, registration},
    state::Idp,
};
use passavant_outbound::{DiscoveryError, Registration, SignInError, SignInFlow, SignInWishes};
use passavant_proto::{
    oidc::upstream::{OpenIdUpstream, Preset, UpstreamProvider},
    others_text::shown,
};

/// One leg, as it was found.
#[derive(Clone, Debug)]
pub struct Leg {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it works.
    pub works: bool,
    /// What was found.
    pub found: String,
    /// Who has to change what.
    pub hint: Option<String>,
}

impl Leg {
    pub(crate) fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, works: true, found: found.into(), hint: None }
    }

    pub(crate) fn bad(
        name: &'static str,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let found = found.into();
        // An error of another room may bring a hint of its own: this one says who has to change what.
        let found = found.split("\nhint:").next().unwrap_or_default().replace('\n', " ");
        Self { name, works: false, found: shown(&found, 600), hint: Some(hint.into()) }
    }
}

/// A value that no upstream has issued.
const NOTHING: &str = "passavant-looks-whether-this-works";

impl Idp {
    /// Every leg that can be looked at without a person.
    pub async fn check_upstream(&self, upstream: &UpstreamProvider) -> Vec<Leg> {
        match upstream.open_id() {
            Some(upstream) => self.check_open_id(upstream).await,
            None => check_saml(self, upstream).await,
        }
    }

    async fn check_open_id(&self, upstream: OpenIdUpstream<'_>) -> Vec<Leg> {
        let mut legs = Vec::new();
        let registration = registration(self, upstream);
        let relying_party = &self.0.authority.context.relying_party;
        // As it is now, not as it was a while ago.
        relying_party.forget(&registration);
        let metadata = match relying_party.metadata(&registration).await {
            Ok(metadata) => metadata,
            Err(error) => {
                let hint = match error {
                    DiscoveryError::Differs(_) => {
                        "an administrator here has to add it again with the issuer that its document names"
                    }
                    _ => {
                        "check the issuer; if it is right, whoever runs the network has to let this server reach it"
                    }
                };
                legs.push(Leg::bad("discovery", error.to_string(), hint));
                return legs;
            }
        };
        legs.push(Leg::good("discovery", format!("{} is what it says", metadata.issuer)));
        legs.push(announced(upstream, &metadata.id_token_signing_alg_values_supported));
        let key_legs = self.keys_of(upstream).await;
        legs.extend(key_legs);
        let flow = SignInFlow { state: NOTHING, nonce: NOTHING, verifier: NOTHING };
        let scope = |offered: &[String]| upstream.scope(offered);
        let wishes = SignInWishes::default();
        match relying_party.authorization_url(&registration, scope, flow, wishes).await {
            Ok(url) => legs.push(self.redirect_uri(&url, &registration).await),
            Err(error) => legs.push(Leg::bad(
                "authorization endpoint",
                error.to_string(),
                "its operator has to correct the discovery document",
            )),
        }
        legs.push(self.client_authentication(upstream).await);
        if upstream.preset.has_groups() && upstream.groups.is_empty() {
            legs.push(Leg::good("groups", "none are mapped: memberships are kept here alone"));
        } else if upstream.preset == Preset::Google {
            legs.push(Leg::good(
                "groups",
                "Google puts none into its tokens: memberships are kept here alone",
            ));
        }
        legs
    }

    /// The keys of its ID tokens; of all tenants, where there are several.
    async fn keys_of(&self, upstream: OpenIdUpstream<'_>) -> Vec<Leg> {
        let registration = registration(self, upstream);
        let relying_party = &self.0.authority.context.relying_party;
        let mut legs = Vec::new();
        for (issuer, keys) in relying_party.look_at_keys(&registration).await {
            legs.push(match keys {
                Ok(()) => {
                    Leg::good("keys", format!("{issuer} has keys for {}", upstream.open_id.algorithm))
                }
                Err(error) => Leg::bad(
                    "keys",
                    error,
                    format!(
                        "check `id_token_signing_alg`, which is {} here: it has to be the one it signs with",
                        upstream.open_id.algorithm
                    ),
                ),
            });
        }
        legs
    }

    /// Whether the upstream takes our redirect URI: it would send a browser there with an error, or
    /// show a page to sign in at.
    async fn redirect_uri(&self, url: &str, registration: &Registration<'_>) -> Leg {
        const NAME: &str = "redirect URI";
        let relying_party = &self.0.authority.context.relying_party;
        let redirect_uri = registration.redirect_uri.as_str();
        match relying_party.visit(registration, url).await {
            Err(error) => Leg::bad(
                NAME,
                error,
                "whoever runs the network has to let this server reach the authorization endpoint, or look \
                 with a browser: people's browsers need it, not this server",
            ),
            Ok((status, location)) => {
                let back = location.as_deref().is_some_and(|to| to.starts_with(redirect_uri));
                if back {
                    let found = shown(location.as_deref().unwrap_or_default(), 300);
                    return if found.contains("error=") {
                        Leg::bad(
                            NAME,
                            format!("it is registered, and the request is refused: {found}"),
                            "the administrator there has to allow the code flow with these scopes for this client",
                        )
                    } else {
                        Leg::good(NAME, format!("{redirect_uri} is taken"))
                    };
                }
                if (200..400).contains(&status) {
                    let found = format!(
                        "it refuses nothing so far (HTTP {status}); whether its page is the sign-in or an error, a \
                         browser shows: {redirect_uri}"
                    );
                    return Leg::good(NAME, found);
                }
                Leg::bad(
                    NAME,
                    format!("its authorization endpoint answers HTTP {status}"),
                    format!(
                        "the administrator there has to register the redirect URI {redirect_uri}, byte for byte, for \
                         this client id"
                    ),
                )
            }
        }
    }

    /// Whether the upstream knows us: a code that it never issued is refused as a code, not for the
    /// sake of who presents it.
    async fn client_authentication(&self, upstream: OpenIdUpstream<'_>) -> Leg {
        const NAME: &str = "client authentication";
        let credential = match Credential::of(self, upstream.record) {
            Ok(credential) => credential,
            Err(error) => {
                let hint = "an administrator here has to give the secret again: `passavant admin upstream change`";
                return Leg::bad(NAME, format!("it cannot be unsealed: {error}"), hint);
            }
        };
        let registration = registration(self, upstream);
        let flow = SignInFlow { state: NOTHING, nonce: NOTHING, verifier: NOTHING };
        let relying_party = &self.0.authority.context.relying_party;
        // With the `iss` that it may announce: this request is not about a browser.
        let open_id = upstream.open_id;
        let iss = Some(open_id.issuer.as_str()).filter(|_| open_id.tenants.is_empty());
        let answer =
            relying_party.finish(&registration, &credential.proof(), flow, NOTHING, iss).await;
        let registered = format!("our keys are at {}", self.issuer().endpoint("/jwks"));
        match answer {
            Ok(_) => Leg::bad(
                NAME,
                "it issued tokens for a code that it never issued",
                "do not use this identity provider",
            ),
            Err(SignInError::Refused { error, .. }) => match error.error.as_str() {
                "invalid_grant" | "invalid_request" => {
                    Leg::good(NAME, format!("it refuses the code, not this client ({error})"))
                }
                "invalid_client" | "unauthorized_client" => Leg::bad(
                    NAME,
                    error.to_string(),
                    format!(
                        "the administrator there has to compare client id, secret or certificate; for \
                         private_key_jwt: {registered}"
                    ),
                ),
                _ => Leg::bad(
                    NAME,
                    error.to_string(),
                    "see what its documentation says about this error",
                ),
            },
            Err(error) => Leg::bad(
                NAME,
                error.to_string(),
                "whoever runs the network has to let this server reach the token endpoint",
            ),
        }
    }
}

fn announced(upstream: OpenIdUpstream<'_>, algorithms: &[String]) -> Leg {
    const NAME: &str = "algorithm of ID tokens";
    let wanted = upstream.open_id.algorithm.name();
    if algorithms.is_empty() || algorithms.iter().any(|one| one == wanted) {
        return Leg::good(NAME, wanted);
    }
    Leg::bad(
        NAME,
        format!("{wanted} is not among those it announces: {}", algorithms.join(", ")),
        "an administrator here has to change it: `passavant admin upstream change --id-token-signing-alg`",
    )
}
