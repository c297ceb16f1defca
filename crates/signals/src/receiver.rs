//! The receiver: other parties push what happens to people (RFC 8935), and what came by way of them ends
//! here.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{FromRequest, Path, Request, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
    routing::post,
};
use passavant_authority::{
    admission::Sender,
    answer::{broken, no_store, throttled},
    origin::{bearer_token, origin_of},
    token_endpoint::Grants,
};
use passavant_outbound::{KeySource, Reach};
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::global_token_revocation::SubId,
    others_text::shown,
    ssf::{self, EVENTS, SecurityEvent, SetRefusal, Subject, Transmitter},
    time::{SKEW, Timestamp},
};
use passavant_store::{AccessEnded, AuditEvent, SaidOnce, Store, StoreError, UsedJti};
use serde_json::json;
use std::future::Future;

/// How long a token is remembered, in seconds: as long as it is taken.
const REMEMBERED: i64 = 15 * 86_400;
/// Longest token, in bytes.
const LONGEST: usize = 32 * 1024;

/// Whose access ends, by what another party said.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Who said it.
    pub transmitter: &'a Transmitter,
    /// The person, if they are named.
    pub person: Option<&'a SubId>,
    /// One session, by the transmitter's id, if it is named.
    pub session: Option<&'a str>,
    /// What began later stays, by the transmitter's clock.
    pub until: Timestamp,
}

/// How a person is named whom a transmitter may speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// By the issuer's `sub`.
    Subject(&'a str),
    /// By an address.
    Email(&'a str),
}

impl<'a> Heard<'a> {
    /// How it names a person of `issuer`, for whom the transmitter speaks; `None` if it names nobody, or
    /// somebody of another issuer: it speaks of its own people alone.
    pub fn named(&self, issuer: &str) -> Option<Named<'a>> {
        match self.person? {
            SubId::IssSub { iss, sub }
                if iss == issuer || iss == self.transmitter.issuer.as_str() =>
            {
                Some(Named::Subject(sub))
            }
            SubId::IssSub { .. } => None,
            SubId::Opaque(subject) => Some(Named::Subject(subject)),
            SubId::Email(email) => Some(Named::Email(email)),
        }
    }
}

/// The transmitters that are switched on.
pub async fn transmitters(store: &Store) -> Result<Vec<Transmitter>, StoreError> {
    let all = store.all::<Transmitter>().await?.into_iter();
    Ok(all.filter(|transmitter| !transmitter.disabled).collect())
}

/// An authorization server that hears of people.
pub trait Receives: Grants + Clone + Send + Sync + 'static {
    /// The transmitter of this name, if it is switched on and whom it speaks for is there.
    fn transmitter<'a>(records: &'a Self::Records, name: &str) -> Option<&'a Transmitter>;

    /// Ends access, once for each token that says so.
    fn end(
        &self,
        records: &Self::Records,
        heard: Heard<'_>,
        said: &SaidOnce,
        event: AuditEvent,
        now: Timestamp,
    ) -> impl Future<Output = Result<AccessEnded, StoreError>> + Send;
}

/// Where transmitters push.
pub fn routes<S: Receives>(base: &str) -> Router<S> {
    Router::new().route(&format!("{base}{EVENTS}/{{transmitter}}"), post(receive::<S>))
}

/// `POST /ssf/events/{transmitter}`.
async fn receive<S: Receives>(
    State(of): State<S>,
    Path(name): Path<String>,
    request: Request,
) -> Response<Body> {
    let (Ok(response) | Err(response)) = received(&of, &name, request).await;
    response
}

/// An error as transmitters know it (RFC 8935, section 2.3).
fn refused(status: StatusCode, err: &str, description: &str) -> Response<Body> {
    let mut response = no_store(status, &json!({"err": err, "description": description}));
    response.headers_mut().insert(header::CONTENT_LANGUAGE, HeaderValue::from_static("en"));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Whether the request carries the token that the transmitter pushes with.
fn is_theirs(transmitter: &Transmitter, headers: &HeaderMap) -> bool {
    bearer_token(headers).is_some_and(|token| token.hash() == transmitter.token_hash)
}

async fn received<S: Receives>(
    of: &S,
    name: &str,
    request: Request,
) -> Result<Response<Body>, Response<Body>> {
    let authority = of.authority();
    let (parts, body) = request.into_parts();
    let (request_id, address) = origin_of(&parts);
    let now = authority.now();
    let snapshot = authority.fresh().await.map_err(|e| broken(&e))?;
    let transmitter = S::transmitter(&snapshot.directory, name);
    let event = AuditEvent::granted(RequestEvent::SignalHeard, now)
        .with(Detail::RequestId, request_id.as_str())
        .with(Detail::Address, address.as_str());
    let Some(transmitter) = transmitter.filter(|held| is_theirs(held, &parts.headers)) else {
        // Which names there are is not said.
        let sender = Sender::Unproven(address);
        of.admission().refusal(&sender).map_err(|busy| throttled(busy.0))?;
        let event = event.refused("signal.transmitter");
        authority.store.note(event, now).await.map_err(|e| broken(&e))?;
        let text = "This address takes the security event tokens of a transmitter that is registered for \
                    it, with the Bearer token that it was given.";
        return Err(refused(StatusCode::UNAUTHORIZED, "authentication_failed", text));
    };
    let event = event.with(Detail::Issuer, transmitter.issuer.as_str());
    let bytes = Bytes::from_request(Request::new(body), &()).await;
    let bytes = bytes.map_err(IntoResponse::into_response)?;
    let token = std::str::from_utf8(&bytes).ok().map(str::trim_ascii);
    let token = token.filter(|token| token.len() <= LONGEST).unwrap_or_default();
    let read = match verified(of, transmitter, token, now).await {
        Ok(read) => read,
        Err(Unread::Keys) => {
            let text = "The keys of the transmitter cannot be fetched just now; try again.";
            let mut response =
                refused(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", text);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            return Err(response);
        }
        Err(Unread::No(error)) => {
            let sender = Sender::Proven(format!("transmitter {name}"));
            of.admission().refusal(&sender).map_err(|busy| throttled(busy.0))?;
            let event =
                event.with(Detail::More, shown(&error.to_string(), 300)).refused("signal.token");
            authority.store.note(event, now).await.map_err(|e| broken(&e))?;
            return Err(refused(StatusCode::BAD_REQUEST, error.word(), &format!("{error}.")));
        }
    };
    let (event, name) =
        (event.with(Detail::Jti, shown(&read.jti, 100)), format!("transmitter {name}"));
    let words: Vec<&str> = read.events.iter().map(|(event, _)| event.word()).collect();
    let event = event.with(Detail::Signal, words.join(" "));
    let said = SaidOnce {
        jwt: UsedJti {
            // Another registration by the same name has heard nothing yet.
            namespace: format!("ssf {} {}", transmitter.name, transmitter.token_hash),
            jti: read.jti.clone(),
            forget_after: now.plus(REMEMBERED),
        },
        // The `jti` is all that counts: a token that is signed anew is the same.
        body: String::new(),
    };
    let about = match &read.subject {
        Some(Subject::Person(person)) => Some((Some(person), None)),
        Some(Subject::Session { person, session }) => {
            Some((person.as_ref(), Some(session.as_str())))
        }
        Some(Subject::Stream(_)) | None => None,
    };
    let (Some((person, session)), true) = (about, read.ends_access()) else {
        // Nothing ends here by it; a row says what was heard. Many such are counted, not written.
        let event = if read.ends_access() { event.refused("signal.unknown") } else { event };
        if of.admission().link(&name).is_ok() {
            authority.store.note(event, now).await.map_err(|e| broken(&e))?;
        }
        return Ok(StatusCode::ACCEPTED.into_response());
    };
    // A transmitter that ends everybody's access is slowed down, and loses nothing: it tries again.
    of.admission().link(&name).map_err(|busy| {
        tracing::warn!(transmitter = name, "a transmitter ends very many people's access");
        throttled(busy.0)
    })?;
    let heard = Heard { transmitter, person, session, until: read.happened_at.min(now.plus(SKEW)) };
    let done = of.end(&snapshot.directory, heard, &said, event, now).await;
    done.map_err(|e| broken(&e))?;
    Ok(StatusCode::ACCEPTED.into_response())
}

enum Unread {
    No(SetRefusal),
    Keys,
}

async fn verified<S: Receives>(
    of: &S,
    transmitter: &Transmitter,
    token: &str,
    now: Timestamp,
) -> Result<SecurityEvent, Unread> {
    let authority = of.authority();
    let (issuer, kid) = ssf::claimed(token).map_err(Unread::No)?;
    if issuer != transmitter.issuer.as_str() {
        return Err(Unread::No(SetRefusal::Issuer));
    }
    let source = KeySource {
        owner: transmitter.issuer.to_string(),
        jwks_uri: transmitter.jwks_uri.clone(),
        algorithm: transmitter.algorithm,
        reach: Reach::of_trusted_url(
            transmitter.jwks_uri.as_deref().unwrap_or(transmitter.issuer.as_str()),
        ),
    };
    let keys = authority.context.remote_keys.keys(&source, kid.as_deref()).await;
    let keys = keys.map_err(|_| Unread::Keys)?;
    ssf::verify(token, &keys, (&transmitter.issuer, &transmitter.audience), now).map_err(Unread::No)
}
