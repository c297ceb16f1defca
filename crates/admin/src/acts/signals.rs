//! Shared signals: others whose signals count here, and the streams of those who listen to ours.

use super::{ActError, ManagedKind, Switched, context::ActContext, put};
use crate::{
    servers::{IdpAdmin, RasAdmin},
    types::{
        Kind, Listed, NewTransmitter, StreamView, TransmitterChange, TransmitterView, Transmitters,
        TrustedIssuers, Upstreams,
    },
};
use passavant_proto::{
    event::{Act, Detail},
    identifier::{Issuer, Resource},
    jose::jwk::Algorithm,
    oidc::upstream::UpstreamProvider,
    others_text::shown,
    secret::Secret,
    ssf::{Transmitter, events_path},
    xaa::trust::TrustedIssuer,
};
use passavant_store::{SignalStream, Waiting};

/// What acts on streams are called in the trail.
const STREAM: &str = "signal stream";

/// A server whose administrator says whose signals count.
pub(crate) trait Hears: Sync + 'static {
    fn issuer(&self) -> &Issuer;

    /// Fails if there is nobody of this name whom a transmitter could speak for.
    fn knows(
        context: &ActContext,
        speaks_for: &str,
    ) -> impl Future<Output = Result<(), ActError>> + Send;
}

impl Hears for IdpAdmin {
    fn issuer(&self) -> &Issuer {
        Self::issuer(self)
    }

    async fn knows(context: &ActContext, speaks_for: &str) -> Result<(), ActError> {
        context.find::<UpstreamProvider>(Upstreams::NOUN, speaks_for).await.map(|_| ())
    }
}

impl Hears for RasAdmin {
    fn issuer(&self) -> &Issuer {
        Self::issuer(self)
    }

    async fn knows(context: &ActContext, speaks_for: &str) -> Result<(), ActError> {
        context.find::<TrustedIssuer>(TrustedIssuers::NOUN, speaks_for).await.map(|_| ())
    }
}

fn view(issuer: &Issuer, held: &Transmitter, token: Option<&Secret>) -> TransmitterView {
    TransmitterView {
        name: held.name.clone(),
        issuer: held.issuer.clone(),
        audience: held.audience.clone(),
        speaks_for: held.speaks_for.clone(),
        jwks_uri: held.jwks_uri.clone(),
        algorithm: held.algorithm,
        endpoint_url: issuer.endpoint(&events_path(&held.name)),
        authorization_header: token.map(|token| format!("Bearer {}", token.expose())),
        disabled: held.disabled,
    }
}

fn check_name(name: &str) -> Result<(), ActError> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = (1..=64).contains(&name.len()) && name.bytes().all(legal);
    if fits && !name.starts_with('-') && !name.ends_with('-') {
        return Ok(());
    }
    Err(ActError::invalid(
        format!("`name`: `{}` cannot be a part of an address", shown(name, 100)),
        "use 1 to 64 small letters, digits and hyphens, a letter or digit at both ends",
    ))
}

fn check_audience(audience: &str) -> Result<(), ActError> {
    let printable = |b: u8| (b' '..=b'~').contains(&b);
    if (1..=1024).contains(&audience.len()) && audience.bytes().all(printable) {
        return Ok(());
    }
    Err(ActError::invalid(
        "`audience` is not a text of 1 to 1024 printable characters of ASCII",
        "the transmitter says it when the stream is made: `aud`",
    ))
}

fn check_keys(uri: Option<&str>) -> Result<(), ActError> {
    match uri.map(Resource::parse) {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(ActError::invalid(
            format!("`jwks_uri`: `{}` {error}", shown(uri.unwrap_or_default(), 200)),
            "use an https URL",
        )),
    }
}

async fn add<A: Hears>(
    of: &A,
    context: &ActContext,
    new: NewTransmitter,
) -> Result<TransmitterView, ActError> {
    check_name(&new.name)?;
    check_audience(&new.audience)?;
    check_keys(new.jwks_uri.as_deref())?;
    A::knows(context, &new.speaks_for).await?;
    let token = context.entropy.secret();
    let transmitter = Transmitter {
        name: new.name,
        issuer: new.issuer,
        audience: new.audience,
        speaks_for: new.speaks_for,
        jwks_uri: new.jwks_uri,
        algorithm: new.algorithm.unwrap_or(Algorithm::RS256),
        token_hash: token.hash(),
        disabled: false,
    };
    context.create(&transmitter).await?;
    Ok(view(of.issuer(), &transmitter, Some(&token)))
}

async fn change<A: Hears>(
    of: &A,
    context: &ActContext,
    id: &str,
    change: TransmitterChange,
) -> Result<TransmitterView, ActError> {
    if let Some(audience) = &change.audience {
        check_audience(audience)?;
    }
    check_keys(change.jwks_uri.as_ref().and_then(Option::as_deref))?;
    let set = |transmitter: &mut Transmitter| {
        put(&mut transmitter.audience, change.audience);
        put(&mut transmitter.jwks_uri, change.jwks_uri);
        put(&mut transmitter.algorithm, change.algorithm);
    };
    let changed = context.change((Transmitters::NOUN, id), Act::Change, set).await?;
    Ok(view(of.issuer(), &changed, None))
}

/// Gives a transmitter another token to push with; the one before opens nothing any more.
pub(crate) async fn renew_token<A: Hears>(
    of: &A,
    context: &ActContext,
    id: &str,
) -> Result<TransmitterView, ActError> {
    let token = context.entropy.secret();
    let hash = token.hash();
    let set = |transmitter: &mut Transmitter| transmitter.token_hash = hash;
    let changed = context.change((Transmitters::NOUN, id), Act::Renew, set).await?;
    Ok(view(of.issuer(), &changed, Some(&token)))
}

impl<A: Hears> ManagedKind<A> for Transmitters {
    type Record = Transmitter;

    async fn view(of: &A, _: &ActContext, held: &Transmitter) -> Result<TransmitterView, ActError> {
        Ok(view(of.issuer(), held, None))
    }

    async fn add(
        of: &A,
        context: &ActContext,
        new: NewTransmitter,
    ) -> Result<TransmitterView, ActError> {
        add(of, context, new).await
    }

    async fn change(
        of: &A,
        context: &ActContext,
        id: &str,
        said: TransmitterChange,
    ) -> Result<TransmitterView, ActError> {
        change(of, context, id, said).await
    }
}

impl<A: Hears> Switched<A> for Transmitters {
    fn set(transmitter: &mut Transmitter, disabled: bool) {
        transmitter.disabled = disabled;
    }
}

fn stream_view((stream, waiting): (SignalStream, Waiting)) -> StreamView {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    StreamView {
        client: stream.client_id,
        id: stream.id,
        events: stream.events.iter().map(|event| event.word().to_owned()).collect(),
        endpoint_url: stream.endpoint_url,
        status: stream.status.word().to_owned(),
        reason: some(stream.reason),
        waiting: waiting.count,
        waiting_since: waiting.since,
        failing_since: Some(stream.failing_since).filter(|since| since.0 > 0),
        failure: some(stream.failure),
        created_at: stream.created_at,
    }
}

/// The streams of those who listen, and what waits for them.
pub(crate) async fn streams(context: &ActContext) -> Result<Listed<StreamView>, ActError> {
    let items = context.store.streams().await?.into_iter().map(stream_view).collect();
    Ok(Listed { items, unreadable: Vec::new(), next: None })
}

/// Deletes the stream of a client, with all that waits for it.
pub(crate) async fn delete_stream(context: &ActContext, client: &str) -> Result<(), ActError> {
    let missing = || {
        ActError::Missing(
            format!("the client `{}` has no stream", shown(client, 200)),
            "`passavant admin stream list` lists them".to_owned(),
        )
    };
    let held = context.store.stream_of(client).await?.ok_or_else(missing)?;
    let event = context.act(Act::Delete, STREAM).with(Detail::Record, client);
    if context.store.delete_stream((client, &held.id), event).await? {
        return Ok(());
    }
    Err(missing())
}
