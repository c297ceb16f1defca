//! The rules of the authorization endpoint (OpenID Connect Core 3.1.2, RFC 6749 4.1, RFC 7636, RFC
//! 9126). The same function parses pushed and plain requests.

use crate::{
    formerly::current,
    identifier::Resource,
    oauth::client::{Client, ENROLLED_CLIENT, GovernedResource},
    oauth::form::Form,
    oauth::pkce::CodeChallenge,
    oauth::redirect_uri,
    oauth::scope::Scopes,
    oidc::authentication::reaches,
    time::{SKEW, Timestamp},
};

/// Scopes of a sign-in; others are left out of the grant.
pub const SCOPES: [&str; 5] = ["openid", "profile", "email", "groups", "offline_access"];
/// The only scope of the built-in client: it allows enrolling an installation, and nothing else.
pub const SCOPE_ENROL: &str = "enrol";
/// Lifetime of an authorization code and of a pushed request, in seconds.
pub const CODE_LIFETIME: i64 = 60;

/// A checked authorization request, as it is stored until the person has signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationRequest {
    /// The client.
    pub client_id: String,
    /// Where to return to: a registered URI, possibly with another loopback port.
    pub redirect_uri: String,
    /// Scopes granted.
    pub scopes: Scopes,
    /// PKCE challenge, S256; `None` from a confidential client that may omit it.
    pub code_challenge: Option<CodeChallenge>,
    /// `state`, which is returned unchanged.
    pub state: Option<String>,
    /// `nonce`, for the ID token.
    pub nonce: Option<String>,
    /// `prompt=none`: no page may be shown.
    pub silent: bool,
    /// `prompt=login` or `select_account`: require a new sign-in.
    pub fresh: bool,
    /// Maximum age of the sign-in, in seconds.
    pub max_age: Option<i64>,
    /// User name to prefill.
    pub login_hint: Option<String>,
    /// DPoP key the code is bound to (RFC 9449 section 10).
    pub dpop_jkt: Option<String>,
    /// The MCP server that the tokens will be for; `None` at an IdP.
    pub resource: Option<Resource>,
    /// The person whom an `id_token_hint` names: nobody else may continue.
    pub subject: Option<String>,
    /// Authentication context classes, one of which is required: an essential `acr` of the `claims`
    /// parameter (OpenID Connect Core 5.5.1.1).
    pub essential_acr: Option<Vec<String>>,
    /// Authentication context classes that are wished for, in order of preference: `acr_values`.
    pub acr_values: Vec<String>,
}

/// Longest `max_age`, in seconds: a century, so that no sum with it overflows.
const LONGEST_AGE: i64 = 100 * 365 * 86_400;

/// The classes that an essential `acr` of the `claims` parameter requires; `None` if there is none.
fn essential_acr(form: &Form) -> Result<Option<Vec<String>>, RedirectError> {
    let Some(text) = form.optional("claims") else { return Ok(None) };
    let bad = || invalid("claims is not the JSON of OpenID Connect Core 5.5.");
    let claims: serde_json::Value = if text.len() <= 4096 {
        serde_json::from_str(text).map_err(|_| bad())?
    } else {
        return Err(bad());
    };
    if !claims.is_object() {
        return Err(bad());
    }
    let acr = &claims["id_token"]["acr"];
    if acr["essential"] != true {
        return Ok(None);
    }
    let values = match (&acr["value"], &acr["values"]) {
        (serde_json::Value::String(one), serde_json::Value::Null) => vec![one.clone()],
        (serde_json::Value::Null, serde_json::Value::Array(many)) => {
            let many = many.iter().map(|value| value.as_str().map(str::to_owned));
            many.collect::<Option<Vec<_>>>().ok_or_else(bad)?
        }
        // Any class is accepted, as long as the ID token names it.
        (serde_json::Value::Null, serde_json::Value::Null) => Vec::new(),
        _ => return Err(bad()),
    };
    Ok(Some(values.iter().map(|value| current(value).to_owned()).collect()))
}

/// Maximum number of classes in one request.
const MOST_CLASSES: usize = 20;

/// The classes of the `acr_values` parameter.
fn acr_values(form: &Form) -> Result<Vec<String>, RedirectError> {
    let classes = form.optional("acr_values").unwrap_or_default().split(' ');
    let classes: Vec<String> =
        classes.filter(|class| !class.is_empty()).map(|class| current(class).to_owned()).collect();
    if classes.len() > MOST_CLASSES {
        return Err(invalid("acr_values has more than 20 values."));
    }
    Ok(classes)
}

/// What an authorization endpoint grants access to.
#[derive(Clone, Copy, Debug)]
pub enum Offer<'a> {
    /// A sign-in at the IdP.
    SignIn,
    /// One of these MCP servers (RFC 8707).
    Resources(&'a [GovernedResource]),
}

/// Why a request cannot be answered by a redirect: shown to the person as a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The query cannot be parsed, or a parameter was sent twice.
    #[error("The sign-in link cannot be read, or has a parameter twice.")]
    Unreadable,
    /// `client_id` is missing, unknown or disabled.
    #[error("The application that sent you here is not known. Ask IT to register it.")]
    Client,
    /// `redirect_uri` is missing or not registered.
    #[error(
        "The application asked to return to an address that is not registered for it. Ask IT to \
         compare the redirect URI with the registration, byte for byte."
    )]
    RedirectUri,
    /// `request_uri` was not issued by this IdP to this client, or has expired or been used.
    #[error("The sign-in link was used before or has expired. Start again in the application.")]
    PushedRequest,
}

/// An error that is returned to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedirectError {
    /// OAuth `error`.
    pub error: &'static str,
    /// `error_description`: a fixed public sentence.
    pub description: &'static str,
}

/// The result of a request that is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unauthorizable {
    /// Show a page; never redirect.
    Page(PageError),
    /// Redirect to this registered URI with the error and the `state`.
    Redirect {
        /// The verified redirect URI.
        redirect_uri: String,
        /// The `state` to return, if possible.
        state: Option<String>,
        /// The error.
        error: RedirectError,
    },
}

/// Parses and checks the parameters. `client` is the enabled client that `client_id` names.
pub fn read(
    form: &Form,
    client: &Client,
    offer: Offer<'_>,
) -> Result<AuthorizationRequest, Unauthorizable> {
    let redirect_uri = form
        .optional("redirect_uri")
        .filter(|uri| redirect_uri::is_registered(uri, &client.redirect_uris))
        .ok_or(Unauthorizable::Page(PageError::RedirectUri))?;
    let state = form.optional("state").filter(|s| is_plain(s)).map(str::to_owned);
    let read = read_rest(form, client, redirect_uri, state.clone(), offer);
    read.map_err(|error| Unauthorizable::Redirect {
        redirect_uri: redirect_uri.to_owned(),
        state,
        error,
    })
}

/// The MCP server that a request is for: the one it names, or the only one there is.
fn governed<'a>(
    form: &Form,
    governed: &'a [GovernedResource],
) -> Result<&'a GovernedResource, RedirectError> {
    let bad = |description| RedirectError { error: "invalid_target", description };
    let mut live = governed.iter().filter(|governed| !governed.disabled);
    let mut named = form.all("resource");
    match (named.next(), named.next()) {
        (Some(text), None) => {
            let resource = Resource::parse(text)
                .map_err(|_| bad("resource is not an absolute URI without fragment."))?;
            let found = live.find(|governed| governed.resource == resource);
            found.ok_or(bad("This authorization server does not govern the resource."))
        }
        // Disabled servers count: with two configured servers, the enabled one is not the only one.
        (None, _) => match governed {
            [only] if !only.disabled => Ok(only),
            _ => Err(bad("resource is required: there are several MCP servers here, or none.")),
        },
        _ => Err(bad("A token is for one resource; ask for one at a time.")),
    }
}

/// The PKCE challenge (RFC 7636 4.3). A challenge that is sent is never ignored, even if the client
/// may omit it.
fn code_challenge(form: &Form, client: &Client) -> Result<Option<CodeChallenge>, RedirectError> {
    let sent = form.mentions("code_challenge") || form.mentions("code_challenge_method");
    if !sent && client.may_omit_pkce() {
        return Ok(None);
    }
    if form.optional("code_challenge_method") != Some("S256") {
        return Err(invalid("PKCE is required: code_challenge_method must be S256."));
    }
    let challenge = form.optional("code_challenge").and_then(CodeChallenge::parse);
    let bad = invalid("PKCE is required: code_challenge must be 43 characters of base64url.");
    challenge.map(Some).ok_or(bad)
}

fn is_plain(text: &str) -> bool {
    text.len() <= 2048 && !text.chars().any(char::is_control)
}

fn invalid(description: &'static str) -> RedirectError {
    RedirectError { error: "invalid_request", description }
}

fn read_rest(
    form: &Form,
    client: &Client,
    redirect_uri: &str,
    state: Option<String>,
    offer: Offer<'_>,
) -> Result<AuthorizationRequest, RedirectError> {
    for name in ["state", "nonce", "login_hint"] {
        if form.optional(name).is_some_and(|value| !is_plain(value)) {
            return Err(invalid("state, nonce and login_hint: 2048 printable bytes at most."));
        }
    }
    if form.mentions("request") {
        let description = "Request objects are not supported; push the request instead.";
        return Err(RedirectError { error: "request_not_supported", description });
    }
    if matches!(offer, Offer::Resources(_)) && form.mentions("request_uri") {
        let description = "Requests cannot be pushed here; send the parameters themselves.";
        return Err(RedirectError { error: "request_uri_not_supported", description });
    }
    if form.mentions("authorization_details") {
        let description = "authorization_details are not supported.";
        return Err(RedirectError { error: "invalid_authorization_details", description });
    }
    if form.optional("response_type") != Some("code") {
        let description = "response_type must be code.";
        return Err(RedirectError { error: "unsupported_response_type", description });
    }
    if form.optional("response_mode").is_some_and(|mode| mode != "query") {
        return Err(invalid("response_mode must be query."));
    }
    if matches!(offer, Offer::SignIn) && form.mentions("resource") {
        let description = "Tokens of this sign-in are for the identity provider alone. For an MCP \
                           server, exchange the ID token for an ID-JAG.";
        return Err(RedirectError { error: "invalid_target", description });
    }
    let code_challenge = code_challenge(form, client)?;
    let scopes =
        Scopes::parse(form.optional("scope").unwrap_or_default()).ok_or(RedirectError {
            error: "invalid_scope",
            description: "scope has illegal characters.",
        })?;
    let prompts: Vec<&str> = form.optional("prompt").unwrap_or_default().split(' ').collect();
    let silent = prompts.contains(&"none");
    if silent && prompts.len() > 1 {
        return Err(invalid("prompt=none cannot be combined with another prompt."));
    }
    let max_age = form.optional("max_age").map(|text| match text.parse::<i64>() {
        Ok(seconds) if seconds >= 0 => Ok(seconds.min(LONGEST_AGE)),
        _ => Err(invalid("max_age must be a number of seconds.")),
    });
    let enrols = client.id == ENROLLED_CLIENT;
    let (scopes, resource) = match offer {
        Offer::SignIn if enrols => {
            (scopes.intersection(&[SCOPE_ENROL].into_iter().collect()), None)
        }
        Offer::SignIn => (scopes.intersection(&SCOPES.into_iter().collect()), None),
        Offer::Resources(all) => {
            let governed = governed(form, all)?;
            let granted = if form.optional("scope").is_some() {
                scopes.intersection(&governed.scopes)
            } else if governed.default_scopes.is_empty() {
                governed.scopes.clone()
            } else {
                governed.default_scopes.clone()
            };
            if granted.is_empty() && !governed.scopes.is_empty() {
                let description = "None of these scopes exists for this resource; see scopes_supported in its metadata.";
                return Err(RedirectError { error: "invalid_scope", description });
            }
            (granted, Some(governed.resource.clone()))
        }
    };
    let dpop_jkt = form.optional("dpop_jkt").map(|text| {
        CodeChallenge::parse(text).ok_or(invalid("dpop_jkt must be a SHA-256 JWK thumbprint."))
    });
    Ok(AuthorizationRequest {
        client_id: client.id.clone(),
        redirect_uri: redirect_uri.to_owned(),
        scopes,
        resource,
        code_challenge,
        state,
        nonce: form.optional("nonce").map(str::to_owned),
        silent,
        // Adding a device always requires a sign-in: an existing session is not enough.
        fresh: enrols || prompts.contains(&"login") || prompts.contains(&"select_account"),
        max_age: max_age.transpose()?,
        login_hint: form.optional("login_hint").map(str::to_owned),
        dpop_jkt: dpop_jkt.transpose()?.map(|jkt| jkt.as_str().to_owned()),
        // Its signature is checked by code that has the keys.
        subject: None,
        essential_acr: essential_acr(form)?,
        acr_values: acr_values(form)?,
    })
}

/// Parses a device authorization request (RFC 8628 section 3.1): a sign-in without a redirect URI.
pub fn read_device(form: &Form, client: &Client) -> Result<AuthorizationRequest, RedirectError> {
    if form.mentions("resource") || form.mentions("authorization_details") {
        return Err(invalid(
            "resource and authorization_details are not supported at this endpoint.",
        ));
    }
    let scopes =
        Scopes::parse(form.optional("scope").unwrap_or_default()).ok_or(RedirectError {
            error: "invalid_scope",
            description: "scope has illegal characters.",
        })?;
    let enrols = client.id == ENROLLED_CLIENT;
    let offered: Scopes =
        if enrols { [SCOPE_ENROL].into_iter().collect() } else { SCOPES.into_iter().collect() };
    Ok(AuthorizationRequest {
        client_id: client.id.clone(),
        redirect_uri: String::new(),
        scopes: scopes.intersection(&offered),
        code_challenge: None,
        state: None,
        nonce: None,
        silent: false,
        fresh: enrols,
        max_age: None,
        login_hint: None,
        dpop_jkt: None,
        resource: None,
        subject: None,
        essential_acr: None,
        acr_values: Vec::new(),
    })
}

impl AuthorizationRequest {
    /// Whether it came from a device that shows a code (RFC 8628), not from a browser.
    pub fn is_of_device(&self) -> bool {
        self.redirect_uri.is_empty()
    }

    /// Whether the client could still make this request: a pushed request waits for its person, and
    /// the registration may have changed meanwhile.
    pub fn is_still_taken(&self, client: &Client) -> bool {
        redirect_uri::is_registered(&self.redirect_uri, &client.redirect_uris)
            && (self.code_challenge.is_some() || client.may_omit_pkce())
    }

    /// Whether the class that a sign-in reached is one of the required ones.
    pub fn is_met_by(&self, acr: &str) -> bool {
        self.essential_acr.as_ref().is_none_or(|values| {
            if values.is_empty() {
                !acr.is_empty()
            } else {
                values.iter().any(|asked| reaches(acr, asked))
            }
        })
    }

    /// The classes to ask for at a sign-in.
    pub fn classes(&self) -> &[String] {
        self.essential_acr
            .as_deref()
            .filter(|values| !values.is_empty())
            .unwrap_or(&self.acr_values)
    }

    /// Whether another sign-in could serve the request better than one that reached `acr`.
    pub fn wishes_more_than(&self, acr: &str) -> bool {
        let wished =
            |values: &[String]| values.is_empty() || values.iter().any(|asked| reaches(acr, asked));
        !self.is_met_by(acr) || !wished(&self.acr_values)
    }

    /// Whether this person may continue.
    pub fn is_for(&self, person: &str) -> bool {
        self.subject.as_deref().is_none_or(|subject| subject == person)
    }

    /// Whether a sign-in at `auth_time` satisfies this request without asking the person again.
    pub fn is_served_by(&self, auth_time: Timestamp, now: Timestamp) -> bool {
        // One that is yet to come is no recent one.
        let age = now.since(auth_time);
        !self.fresh && self.max_age.is_none_or(|longest| age <= longest && age >= -SKEW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::client::ClientAuthentication;

    fn client() -> Client {
        Client {
            id: "agent".to_owned(),
            name: "Agent".to_owned(),
            authentication: ClientAuthentication::Public,
            redirect_uris: vec!["https://a.example/cb".to_owned()],
            ..Client::default()
        }
    }

    const GOOD: &str = "client_id=agent&redirect_uri=https%3A%2F%2Fa.example%2Fcb\
        &response_type=code&code_challenge_method=S256&state=s\
        &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn error_of(changed: &str) -> &'static str {
        let form = Form::parse(changed.as_bytes()).unwrap();
        match read(&form, &client(), Offer::SignIn) {
            Err(Unauthorizable::Redirect { error, state, .. }) => {
                assert!(state.as_deref() == Some("s") || changed.contains("state=%0"));
                error.error
            }
            Err(Unauthorizable::Page(_)) => "page",
            Ok(_) => "ok",
        }
    }

    #[test]
    fn enrolling_grants_enrolment_alone_and_always_asks_the_person() {
        let form =
            GOOD.replace("https%3A%2F%2Fa.example%2Fcb", "http%3A%2F%2F127.0.0.1%3A4%2Fcallback");
        let form = Form::parse(format!("{form}&scope=openid%20enrol%20offline_access").as_bytes());
        let request = read(&form.unwrap(), &Client::enrolment(), Offer::SignIn).unwrap();
        assert_eq!(request.scopes.to_string(), "enrol");
        assert!(!request.is_served_by(Timestamp(0), Timestamp(0)), "a session is not enough");
        let form = Form::parse(format!("{GOOD}&scope=openid%20enrol").as_bytes()).unwrap();
        assert_eq!(read(&form, &client(), Offer::SignIn).unwrap().scopes.to_string(), "openid");
    }

    #[test]
    fn each_rule_of_the_authorization_endpoint_refuses_on_its_own() {
        assert_eq!(error_of(GOOD), "ok");
        for (from, to, expected) in [
            ("cb&", "cb2&", "page"),
            ("redirect_uri", "redirect_urx", "page"),
            ("=code&", "=token&", "unsupported_response_type"),
            ("=code&", "=code%20id_token&", "unsupported_response_type"),
            ("=S256", "=plain", "invalid_request"),
            ("code_challenge=E9", "code_challenge=E", "invalid_request"),
            ("code_challenge=E9", "other=E9", "invalid_request"),
            ("&state=s", "&state=%0d%0aLocation:x", "invalid_request"),
            ("&state=s", "&state=s&prompt=none%20login", "invalid_request"),
            ("&state=s", "&state=s&max_age=-1", "invalid_request"),
            ("&state=s", "&state=s&response_mode=fragment", "invalid_request"),
            ("&state=s", "&state=s&request=x", "request_not_supported"),
            ("&state=s", "&state=s&resource=https://a/", "invalid_target"),
            ("&state=s", "&state=s&scope=a%22b", "invalid_scope"),
            ("&state=s", "&state=s&claims=x", "invalid_request"),
            ("&state=s", "&state=s&claims=[]", "invalid_request"),
            (
                "&state=s",
                "&state=s&claims=%7B%22id_token%22%3A%7B%22acr%22%3A%7B%22essential%22%3Atrue%2C%22value%22%3A7%7D%7D%7D",
                "invalid_request",
            ),
        ] {
            let changed = GOOD.replace(from, to);
            assert_ne!(changed, GOOD, "the mutation {from} did nothing");
            assert_eq!(error_of(&changed), expected, "{from} -> {to}");
        }
    }

    #[test]
    fn pkce_may_be_left_out_by_a_confidential_client_that_has_the_switch_and_by_nobody_else() {
        let without = GOOD.replace("&code_challenge_method=S256", "");
        let without =
            without.replace("&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", "");
        let secret = ClientAuthentication::Secret(Vec::new());
        for (authentication, pkce_optional, taken) in [
            (secret.clone(), true, true),
            (secret, false, false),
            (ClientAuthentication::Public, true, false),
        ] {
            let client = Client { authentication, pkce_optional, ..client() };
            let ask =
                |text: &str| read(&Form::parse(text.as_bytes()).unwrap(), &client, Offer::SignIn);
            assert_eq!(ask(&without).is_ok(), taken, "{:?}", client.authentication);
            let asked = ask(GOOD).unwrap();
            assert!(asked.code_challenge.is_some(), "one that is sent is kept");
            for half in [
                format!("{without}&code_challenge_method=S256"),
                format!("{without}&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
                format!("{without}&code_challenge_method=plain&code_challenge=x"),
            ] {
                assert!(ask(&half).is_err(), "{half}");
            }
        }
    }

    #[test]
    fn an_essential_class_is_met_or_not_and_ages_do_not_overflow() {
        let of = |more: &str| {
            let form = Form::parse(format!("{GOOD}{more}").as_bytes()).unwrap();
            read(&form, &client(), Offer::SignIn).unwrap()
        };
        let asked = |acr: &str| {
            let claims = format!(r#"{{"id_token":{{"acr":{acr}}}}}"#);
            let query: String = form_urlencoded::byte_serialize(claims.as_bytes()).collect();
            of(&format!("&claims={query}"))
        };
        let gold = asked(r#"{"essential":true,"values":["gold","silver"]}"#);
        assert!(gold.is_met_by("silver") && !gold.is_met_by("pwd") && !gold.is_met_by(""));
        assert!(asked(r#"{"essential":true,"value":"gold"}"#).is_met_by("gold"));
        assert!(asked(r#"{"essential":true}"#).is_met_by("pwd"));
        assert!(asked(r#"{"values":["gold"]}"#).is_met_by("pwd"), "voluntary");
        assert!(asked("null").is_met_by("pwd"));
        let old = of("&max_age=9223372036854775807");
        assert!(old.is_served_by(Timestamp(0), Timestamp(3_000_000_000)));
        assert!(old.max_age.unwrap().checked_neg().unwrap().checked_sub(1_000_000).is_some());
    }
}
