//! OAuth clients, at either server.

use super::{
    ActError, ManagedKind, Switched, check_addressable, context::ActContext, people::dependent, put,
};
use crate::{
    servers::{IdpAdmin, RasAdmin},
    types::{
        ClientChange, ClientProof, ClientView, Clients, Dependents, Fate, Kind, NewClient,
        NewSecret, SecretView, SignalsAbout,
    },
};
use passavant_proto::{
    event::Act,
    formerly,
    identifier::{Resource, SubjectIssuer},
    jose::jwk::{Algorithm, KeySet},
    oauth::client::{
        Client, ClientAuthentication, ClientKeys, ENROLLED_CLIENT, SecretHash, is_client_id,
    },
    oauth::redirect_uri,
    others_text::shown,
    policy::Connection,
    secret::Secret,
    xaa::trust::TrustedIssuer,
};
use serde_json::Value;

/// Longest lifetime of an ID token, in seconds.
const LONGEST_ID_TOKEN: i64 = 43_200;

/// Longest time that an old secret stays valid, in seconds.
const LONGEST_OVERLAP: i64 = 30 * 86_400;

fn view(client: &Client) -> ClientView {
    let (authentication, jwks_uri, algorithm) = match &client.authentication {
        ClientAuthentication::Secret(_) => (ClientProof::ClientSecret, None, None),
        ClientAuthentication::PrivateKeyJwt { keys, algorithm } => {
            let uri = match keys {
                ClientKeys::Fetched(uri) => Some(uri.clone()),
                ClientKeys::Inline(_) => None,
            };
            (ClientProof::PrivateKeyJwt, uri, Some(*algorithm))
        }
        ClientAuthentication::Public => (ClientProof::None, None, None),
    };
    ClientView {
        id: client.id.clone(),
        name: client.name.clone(),
        authentication,
        client_secret: None,
        jwks_uri,
        algorithm,
        redirect_uris: client.redirect_uris.clone(),
        post_logout_redirect_uris: client.post_logout_redirect_uris.clone(),
        backchannel_logout_uri: client.backchannel_logout_uri.clone(),
        id_token_lifetime: client.id_token_lifetime,
        id_token_signed_response_alg: client.id_token_signed_response_alg,
        pkce_optional: client.pkce_optional,
        device_grant: client.device_grant,
        dpop_bound_access_tokens: client.dpop_bound_access_tokens,
        require_pushed_authorization_requests: client.require_pushed_authorization_requests,
        resources: client.resources.clone(),
        saml_entity_id: client.saml_entity_id.clone(),
        signals: client.signals.map(SignalsAbout::from),
        software: client.software.clone(),
        registered_at: client.registered.map(|registered| registered.at),
        disabled: client.disabled,
    }
}

fn no_optional_pkce() -> ActError {
    ActError::conflict(
        "`pkce_optional`: a public client must use PKCE",
        "leave it out, or give the client a secret or a key",
    )
}

/// Where this server posts to: an https:// URL, or one of this machine (section 2.2).
fn check_logout_uri(uri: Option<&str>) -> Result<(), ActError> {
    match uri.map(Resource::parse) {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(ActError::invalid(
            format!("`backchannel_logout_uri`: `{}` {error}", shown(uri.unwrap_or_default(), 200)),
            "for instance https://app.example/backchannel-logout",
        )),
    }
}

/// An assertion is for one client: the one that its audience stands for, and that proves who it is.
async fn check_entity_id(
    context: &ActContext,
    (id, public): (&str, bool),
    entity_id: Option<&str>,
) -> Result<(), ActError> {
    let Some(entity_id) = entity_id else { return Ok(()) };
    if let Err(error) = SubjectIssuer::entity_id(entity_id) {
        return Err(ActError::invalid(
            format!("`saml_entity_id`: `{}` {error}", shown(entity_id, 100)),
            "write it as the identity provider has it",
        ));
    }
    if public {
        return Err(ActError::conflict(
            "`saml_entity_id`: anybody can claim to be a public client",
            "give it a secret or a key",
        ));
    }
    let all = context.all_readable::<Client>().await?;
    let taken = |held: &&Client| held.id != id && held.saml_entity_id.as_deref() == Some(entity_id);
    match all.iter().find(taken) {
        None => Ok(()),
        Some(other) => Err(ActError::conflict(
            format!("`saml_entity_id`: the client `{}` has it already", other.id),
            "an assertion is for one client: change that one first",
        )),
    }
}

fn check_uris(field: &str, uris: &[String], public: bool) -> Result<(), ActError> {
    for uri in uris {
        redirect_uri::check_for(public, uri).map_err(|error| {
            ActError::invalid(
                format!("`{field}`: `{uri}` {error}"),
                "for a program on this machine use http://127.0.0.1/callback; the port does not matter",
            )
        })?;
    }
    Ok(())
}

fn check_lifetime(seconds: Option<i64>) -> Result<(), ActError> {
    match seconds {
        Some(seconds) if !(1..=LONGEST_ID_TOKEN).contains(&seconds) => Err(ActError::invalid(
            format!("`id_token_lifetime`: {seconds} is not from 1 to {LONGEST_ID_TOKEN} seconds"),
            "leave it out to use the default of ten minutes",
        )),
        _ => Ok(()),
    }
}

/// The keys that a client authenticates with.
fn keys_of(
    jwks: Option<&Value>,
    jwks_uri: Option<&String>,
    algorithm: Algorithm,
) -> Result<Option<ClientKeys>, ActError> {
    match (jwks, jwks_uri) {
        (Some(jwks), None) => {
            KeySet::parse(jwks.to_string().as_bytes(), algorithm).map_err(|error| {
                ActError::invalid(
                    format!("`jwks`: the key set {error}"),
                    "give the public keys, and `algorithm` if it is not ES256",
                )
            })?;
            Ok(Some(ClientKeys::Inline(jwks.clone())))
        }
        (None, Some(url)) => {
            Resource::parse(url).map_err(|error| {
                ActError::invalid(format!("`jwks_uri`: `{url}` {error}"), "use an https URL")
            })?;
            Ok(Some(ClientKeys::Fetched(url.clone())))
        }
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(ActError::conflict(
            "`jwks` and `jwks_uri` exclude each other",
            "give the keys themselves (`jwks`) or their URL (`jwks_uri`), not both",
        )),
    }
}

fn authentication(
    context: &ActContext,
    new: &NewClient,
    may_be_public: bool,
) -> Result<(ClientAuthentication, Option<Secret>), ActError> {
    let algorithm = new.algorithm.unwrap_or_default();
    let several = new.public && (new.jwks.is_some() || new.jwks_uri.is_some());
    if several || (new.jwks.is_some() && new.jwks_uri.is_some()) {
        return Err(ActError::conflict(
            "`jwks`, `jwks_uri` and `public` exclude each other",
            "a client has exactly one authentication method: leave out the others",
        ));
    }
    if new.public && !may_be_public {
        return Err(ActError::invalid(
            "`public`: a resource authorization server takes no public clients",
            "leave it out; the client gets a secret",
        ));
    }
    if new.public {
        return Ok((ClientAuthentication::Public, None));
    }
    if let Some(keys) = keys_of(new.jwks.as_ref(), new.jwks_uri.as_ref(), algorithm)? {
        return Ok((ClientAuthentication::PrivateKeyJwt { keys, algorithm }, None));
    }
    let secret = context.entropy.secret();
    let hash = SecretHash { hash: secret.hash(), expires: None };
    Ok((ClientAuthentication::Secret(vec![hash]), Some(secret)))
}

/// Whoever listens proves who it is, and verifies what it hears by RS256, which the profile for it asks for.
async fn check_signals(
    context: &ActContext,
    public: bool,
    signals: Option<SignalsAbout>,
) -> Result<(), ActError> {
    if signals.is_none() {
        return Ok(());
    }
    if public {
        return Err(ActError::conflict(
            "`signals`: a public client cannot prove who listens",
            "leave it out, or give the client a secret or a key",
        ));
    }
    context.check_signing_alg("signals", Some(Algorithm::RS256)).await
}

/// An authorization server knows nobody's sign-in.
fn no_signals(signals: Option<SignalsAbout>) -> Result<(), ActError> {
    if signals.is_none() {
        return Ok(());
    }
    Err(ActError::conflict(
        "`signals`: a resource authorization server has none to tell",
        "register the client at the identity provider, without --ras",
    ))
}

/// Registers a client. The response contains its secret, which is never shown again.
async fn add(
    context: &ActContext,
    new: NewClient,
    may_be_public: bool,
) -> Result<ClientView, ActError> {
    let id = new.id.clone().unwrap_or_else(|| context.entropy.id());
    if formerly::current(&id) == ENROLLED_CLIENT {
        return Err(ActError::invalid(
            format!("`id`: `{id}` is reserved for the installations that people enrol themselves"),
            "choose another id; a connection can name `passavant` without a registration",
        ));
    }
    if !is_client_id(&id) {
        return Err(ActError::invalid(
            format!("`id`: `{id}` cannot be a client id"),
            "use 1 to 128 letters, digits and - _ . ~",
        ));
    }
    check_addressable("id", &id)?;
    check_uris("redirect_uris", &new.redirect_uris, new.public)?;
    check_uris("post_logout_redirect_uris", &new.post_logout_redirect_uris, false)?;
    check_logout_uri(new.backchannel_logout_uri.as_deref())?;
    check_lifetime(new.id_token_lifetime)?;
    let (authentication, secret) = authentication(context, &new, may_be_public)?;
    let public = authentication == ClientAuthentication::Public;
    if new.pkce_optional && public {
        return Err(no_optional_pkce());
    }
    check_entity_id(context, (&id, public), new.saml_entity_id.as_deref()).await?;
    check_signals(context, public, new.signals).await?;
    let chosen = new.id_token_signed_response_alg;
    context.check_signing_alg("id_token_signed_response_alg", chosen).await?;
    let client = Client {
        id,
        name: new.name,
        authentication,
        redirect_uris: new.redirect_uris,
        post_logout_redirect_uris: new.post_logout_redirect_uris,
        backchannel_logout_uri: new.backchannel_logout_uri,
        id_token_lifetime: new.id_token_lifetime,
        id_token_signed_response_alg: chosen,
        pkce_optional: new.pkce_optional,
        device_grant: new.device_grant,
        dpop_bound_access_tokens: new.dpop_bound_access_tokens,
        require_pushed_authorization_requests: new.require_pushed_authorization_requests,
        resources: new.resources,
        saml_entity_id: new.saml_entity_id,
        signals: new.signals.map(Into::into),
        software: new.software,
        registered: None,
        disabled: false,
    };
    context.create(&client).await?;
    let client_secret = secret.map(|secret| secret.expose().to_owned());
    Ok(ClientView { client_secret, ..view(&client) })
}

async fn change(
    context: &ActContext,
    id: &str,
    change: ClientChange,
) -> Result<ClientView, ActError> {
    let held = context.find::<Client>(Clients::NOUN, id).await?;
    let public = held.authentication == ClientAuthentication::Public;
    for (field, uris, public) in [
        ("redirect_uris", &change.redirect_uris, public),
        ("post_logout_redirect_uris", &change.post_logout_redirect_uris, false),
    ] {
        check_uris(field, uris.as_deref().unwrap_or_default(), public)?;
    }
    check_logout_uri(change.backchannel_logout_uri.as_ref().and_then(Option::as_deref))?;
    check_lifetime(change.id_token_lifetime.flatten())?;
    let chosen = change.id_token_signed_response_alg;
    context.check_signing_alg("id_token_signed_response_alg", chosen.flatten()).await?;
    if change.pkce_optional == Some(true) && public {
        return Err(no_optional_pkce());
    }
    let entity_id = change.saml_entity_id.as_ref().and_then(Option::as_deref);
    check_entity_id(context, (id, public), entity_id).await?;
    check_signals(context, public, change.signals.flatten()).await?;
    let keys = other_keys(&held, &change)?;
    let set = move |client: &mut Client| {
        put(&mut client.name, change.name);
        put(&mut client.redirect_uris, change.redirect_uris);
        put(&mut client.post_logout_redirect_uris, change.post_logout_redirect_uris);
        put(&mut client.backchannel_logout_uri, change.backchannel_logout_uri);
        put(&mut client.id_token_lifetime, change.id_token_lifetime);
        put(&mut client.id_token_signed_response_alg, chosen);
        put(&mut client.pkce_optional, change.pkce_optional);
        put(&mut client.device_grant, change.device_grant);
        put(&mut client.dpop_bound_access_tokens, change.dpop_bound_access_tokens);
        put(
            &mut client.require_pushed_authorization_requests,
            change.require_pushed_authorization_requests,
        );
        put(&mut client.resources, change.resources);
        put(&mut client.saml_entity_id, change.saml_entity_id);
        put(&mut client.signals, change.signals.map(|said| said.map(Into::into)));
        put(&mut client.software, change.software);
        if let (Some(keys), ClientAuthentication::PrivateKeyJwt { .. }) =
            (keys, &client.authentication)
        {
            client.authentication = keys;
        }
    };
    Ok(view(&context.change::<Client>((Clients::NOUN, id), Act::Change, set).await?))
}

/// The keys of a client after a change: only a client that has keys can get others.
fn other_keys(
    held: &Client,
    change: &ClientChange,
) -> Result<Option<ClientAuthentication>, ActError> {
    let ClientAuthentication::PrivateKeyJwt { keys, algorithm } = &held.authentication else {
        if change.jwks.is_some() || change.jwks_uri.is_some() || change.algorithm.is_some() {
            return Err(ActError::conflict(
                format!(
                    "`jwks`: the client `{}` does not authenticate with keys (private_key_jwt)",
                    held.id
                ),
                "register a new client with keys, and delete this one when it is no longer used",
            ));
        }
        return Ok(None);
    };
    let algorithm = change.algorithm.unwrap_or(*algorithm);
    let held = match keys {
        ClientKeys::Inline(jwks) => keys_of(Some(jwks), None, algorithm),
        ClientKeys::Fetched(_) => Ok(Some(keys.clone())),
    };
    let keys = match keys_of(change.jwks.as_ref(), change.jwks_uri.as_ref(), algorithm)? {
        Some(keys) => Some(keys),
        None => held?,
    };
    Ok(keys.map(|keys| ClientAuthentication::PrivateKeyJwt { keys, algorithm }))
}

/// Issues a new secret for a client. If requested, the old ones stay valid for a while.
pub(crate) async fn new_secret(
    context: &ActContext,
    id: &str,
    new: NewSecret,
) -> Result<SecretView, ActError> {
    let client = context.find::<Client>(Clients::NOUN, id).await?;
    if !matches!(client.authentication, ClientAuthentication::Secret(_)) {
        return Err(ActError::conflict(
            format!("client `{id}` has no secret"),
            "only clients that authenticate with a secret have one to rotate",
        ));
    }
    if !(0..=LONGEST_OVERLAP).contains(&new.overlap) {
        return Err(ActError::invalid(
            format!("`overlap`: {} is not from 0 to {LONGEST_OVERLAP} seconds", new.overlap),
            "give 0 to end the old secrets at once",
        ));
    }
    let now = context.now();
    let ends = now.plus(new.overlap);
    let secret = context.entropy.secret();
    let fresh = SecretHash { hash: secret.hash(), expires: None };
    let rotate = |client: &mut Client| {
        if let ClientAuthentication::Secret(hashes) = &mut client.authentication {
            hashes.retain(|hash| hash.expires.is_none_or(|expires| now < expires));
            for hash in hashes.iter_mut() {
                hash.expires = Some(hash.expires.map_or(ends, |expires| expires.min(ends)));
            }
            hashes.push(fresh);
        }
    };
    context.change::<Client>((Clients::NOUN, id), Act::RotateSecret, rotate).await?;
    Ok(SecretView { id: id.to_owned(), client_secret: secret.expose().to_owned() })
}

impl ManagedKind<IdpAdmin> for Clients {
    type Record = Client;

    async fn view(_: &IdpAdmin, _: &ActContext, client: &Client) -> Result<ClientView, ActError> {
        Ok(view(client))
    }

    async fn add(
        _: &IdpAdmin,
        context: &ActContext,
        new: NewClient,
    ) -> Result<ClientView, ActError> {
        add(context, new, true).await
    }

    async fn change(
        _: &IdpAdmin,
        context: &ActContext,
        id: &str,
        said: ClientChange,
    ) -> Result<ClientView, ActError> {
        change(context, id, said).await
    }

    async fn dependents(
        _: &IdpAdmin,
        context: &ActContext,
        id: &str,
    ) -> Result<Dependents, ActError> {
        let all = context.store.all::<Connection>().await?.into_iter();
        let of_it = all.filter(|connection| connection.idp_client_id == id);
        let records = of_it.map(|c| dependent("connection", c.id, Fate::Deleted)).collect();
        Ok(Dependents { records })
    }
}

impl Switched<IdpAdmin> for Clients {
    fn set(client: &mut Client, disabled: bool) {
        client.disabled = disabled;
    }
}

impl ManagedKind<RasAdmin> for Clients {
    type Record = Client;

    async fn view(_: &RasAdmin, _: &ActContext, client: &Client) -> Result<ClientView, ActError> {
        Ok(view(client))
    }

    async fn add(
        _: &RasAdmin,
        context: &ActContext,
        new: NewClient,
    ) -> Result<ClientView, ActError> {
        no_signals(new.signals)?;
        // A public client gets only what a person consents to, so people must be able to sign in.
        let trusted = context.store.all::<TrustedIssuer>().await?;
        let people = trusted.iter().any(|trusted| trusted.sign_in.is_some());
        add(context, new, people).await
    }

    async fn change(
        _: &RasAdmin,
        context: &ActContext,
        id: &str,
        said: ClientChange,
    ) -> Result<ClientView, ActError> {
        no_signals(said.signals.flatten())?;
        change(context, id, said).await
    }
}

impl Switched<RasAdmin> for Clients {
    fn set(client: &mut Client, disabled: bool) {
        client.disabled = disabled;
    }
}
