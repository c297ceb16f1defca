//! The tower layer: checks Host, Origin and token, then the scopes of the operation, and passes on
//! the caller.

use crate::{
    admission::{Admission, NotAdmitted},
    caller::Caller,
    feed::WithoutFeed,
    introspection::Introspection,
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header},
    response::IntoResponse,
    routing::get,
};
use futures::StreamExt;
use http_body_util::{BodyExt, Limited};
use passavant_outbound::{Outbound, RemoteKeys};
use passavant_proto::{
    identifier::{IdentifierError, Issuer, Resource},
    jose::claims::parse_json,
    jose::jwk::Algorithm,
    oauth::access_token::TokenForm,
    oauth::challenge::Challenge,
    oauth::metadata::ProtectedResourceMetadata,
    oauth::scope::Scopes,
    secret::Secret,
    time::Clock,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tower::{Layer, Service, ServiceExt};
use url::Url;

/// Largest request body that is read to find the called tool, in bytes.
const LARGEST: usize = 4 * 1024 * 1024;

/// Guards one MCP server. A layer; cheap to clone.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    admission: Arc<Admission>,
    algorithm: Algorithm,
    form: TokenForm,
    introspection: Option<Arc<Introspection>>,
    scopes: Scopes,
    required: Scopes,
    tools: BTreeMap<String, Scopes>,
    hosts: BTreeSet<String>,
    origins: BTreeSet<String>,
    name: Option<String>,
    jwks_uri: Option<String>,
}

/// A request that is not admitted: the response, and the reason for the record.
#[derive(Debug)]
pub struct Refused {
    /// The reason. It begins with `token.` if a token was sent and rejected.
    pub reason: &'static str,
    /// The complete response.
    pub response: Response<Body>,
}

impl Guard {
    /// A guard for the MCP server `resource` (its URL, as clients use it) that accepts access
    /// tokens of `authorization_server`. They have to be signed with ES256, unless
    /// [`Guard::algorithm`] sets another algorithm.
    pub fn new(
        resource: &str,
        authorization_server: &str,
        outbound: Outbound,
        clock: Clock,
    ) -> Result<Self, IdentifierError> {
        let keys = RemoteKeys::new(outbound, clock.clone());
        Self::with_keys(resource, authorization_server, keys, clock)
    }

    /// Like [`Guard::new`], sharing a key cache with other guards.
    pub fn with_keys(
        resource: &str,
        authorization_server: &str,
        keys: RemoteKeys,
        clock: Clock,
    ) -> Result<Self, IdentifierError> {
        let resource = Resource::parse(resource)?;
        let issuer = Issuer::parse(authorization_server)?;
        let hosts = authority(resource.normalized()).into_iter().collect();
        Ok(Self(Arc::new(Inner {
            admission: Arc::new(Admission::new(resource, issuer, keys, clock)),
            algorithm: Algorithm::default(),
            form: TokenForm::default(),
            introspection: None,
            scopes: Scopes::default(),
            required: Scopes::default(),
            tools: BTreeMap::new(),
            hosts,
            origins: BTreeSet::new(),
            name: None,
            jwks_uri: None,
        })))
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Scopes of the MCP server, for its metadata.
    #[must_use]
    pub fn scopes<S: Into<String>>(self, scopes: impl IntoIterator<Item = S>) -> Self {
        let scopes = scopes.into_iter().collect();
        self.change(|inner| inner.scopes = scopes)
    }

    /// Scopes that every request needs, and that the challenge names.
    #[must_use]
    pub fn require<S: Into<String>>(self, scopes: impl IntoIterator<Item = S>) -> Self {
        let scopes = scopes.into_iter().collect();
        self.change(|inner| inner.required = scopes)
    }

    /// Additional scopes that calls of one tool need. Other tools need no additional ones.
    #[must_use]
    pub fn tool<S: Into<String>>(self, name: &str, scopes: impl IntoIterator<Item = S>) -> Self {
        let scopes = scopes.into_iter().collect();
        self.change(|inner| {
            inner.tools.insert(name.to_owned(), scopes);
        })
    }

    /// The algorithm of the authorization server's signatures.
    #[must_use]
    pub fn algorithm(self, algorithm: Algorithm) -> Self {
        self.change(|inner| inner.algorithm = algorithm)
    }

    /// The form of the authorization server's tokens, for another vendor's server.
    #[must_use]
    pub fn token_form(self, form: TokenForm) -> Self {
        self.change(|inner| inner.form = form)
    }

    /// Asks the authorization server about each token, as the client `client_id` that is registered
    /// there for this resource, and listens to its feed of ended tokens: what is revoked or disabled there
    /// is refused here at once. Where there is no feed, or it is silent, the authorization server is asked
    /// once a second, and the same holds within a second. Without this, a token is accepted until it
    /// expires.
    #[must_use]
    pub fn introspect(self, outbound: Outbound, client_id: &str, secret: Secret) -> Self {
        self.introspect_or(outbound, client_id, secret, WithoutFeed::Ask)
    }

    /// Like [`Guard::introspect`], with what happens while the feed is silent.
    #[must_use]
    pub fn introspect_or(
        self,
        outbound: Outbound,
        client_id: &str,
        secret: Secret,
        without: WithoutFeed,
    ) -> Self {
        self.change(|inner| {
            let (clock, issuer) = (inner.admission.clock.clone(), inner.admission.issuer.clone());
            let credentials = (client_id, secret);
            let introspection = Introspection::new(outbound, issuer, credentials, without, clock);
            inner.introspection = Some(Arc::new(introspection));
        })
    }

    /// A further value of `Host` (with the port, unless it is the scheme's default) under which the
    /// MCP server is reached.
    #[must_use]
    pub fn host(self, host: &str) -> Self {
        self.change(|inner| {
            inner.hosts.insert(host.to_ascii_lowercase());
        })
    }

    /// An `Origin` whose pages may call the MCP server from a browser. By default none may.
    #[must_use]
    pub fn origin(self, origin: &str) -> Self {
        self.change(|inner| {
            inner.origins.insert(origin.to_owned());
        })
    }

    /// The MCP server's name for people.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.change(|inner| inner.name = Some(name.to_owned()))
    }

    /// URL of the keys that the resource signs with (RFC 9728 section 2).
    #[must_use]
    pub fn jwks_uri(self, url: &str) -> Self {
        self.change(|inner| inner.jwks_uri = Some(url.to_owned()))
    }

    /// The MCP server's resource identifier.
    pub fn resource(&self) -> &Resource {
        &self.0.admission.resource
    }

    /// The values of `Host` under which the MCP server is reached, in lower case.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.0.hosts.iter().map(String::as_str)
    }

    /// Whether pages of this origin may call the MCP server.
    pub fn allows_origin(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.0.origins.contains(origin))
    }

    /// The checks of a request's head: Host and Origin, token, and, if introspection is on, whether
    /// the token is still active. The scopes of the operation are not checked here.
    pub async fn admit(
        &self,
        method: &str,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Caller, Refused> {
        self.0.check_origin(headers, uri)?;
        let inner = &self.0;
        let admitted = inner.admission.admit((inner.algorithm, inner.form), method, headers).await;
        let caller: Caller = admitted.map_err(|why| inner.refuse(why))?;
        if let Some(introspection) = &inner.introspection {
            let stands = introspection.check(caller.token_id(), token_of(headers)).await;
            stands.map_err(|why| inner.refuse(why))?;
        }
        Ok(caller)
    }

    /// The response if the token was revoked while the request was in progress.
    pub fn revoked(&self) -> Response<Body> {
        let what = "the token was revoked, or its grant was";
        self.0.refuse(NotAdmitted::InvalidToken(what.into())).response
    }

    /// The challenge that names all scopes an operation needs (RFC 6750 section 3.1; MCP
    /// authorization, Scope Challenge Handling).
    pub fn insufficient_scope(&self, needed: &Scopes) -> Challenge {
        let challenge = self.0.challenge().with("error", "insufficient_scope");
        challenge.with("scope", needed.to_string())
    }

    /// The challenge that asks for a more recent or stronger sign-in (RFC 9470 section 3).
    pub fn insufficient_authentication(
        &self,
        max_age: Option<i64>,
        acr_values: &[String],
    ) -> Challenge {
        let what = "this tool asks for a fresh or a stronger sign-in";
        let mut challenge = self.0.challenge();
        challenge = challenge.with("error", "insufficient_user_authentication");
        challenge = challenge.with("error_description", what);
        if let Some(seconds) = max_age {
            challenge = challenge.with("max_age", seconds.to_string());
        }
        if !acr_values.is_empty() {
            challenge = challenge.with("acr_values", acr_values.join(" "));
        }
        challenge
    }

    /// The RFC 9728 document.
    pub fn document(&self) -> ProtectedResourceMetadata {
        let inner = &self.0;
        let admission = &inner.admission;
        let mut document =
            ProtectedResourceMetadata::new(&admission.resource, &admission.issuer, &inner.scopes);
        document.resource_name.clone_from(&inner.name);
        document.jwks_uri.clone_from(&inner.jwks_uri);
        document
    }

    /// The RFC 9728 metadata route, with the resource's path inserted; for a resource without a
    /// path that is the root form.
    pub fn metadata(&self) -> Router {
        let document = self.document();
        let admission = &self.0.admission;
        let path = format!("/.well-known/oauth-protected-resource{}", admission.resource.path());
        Router::new().route(
            &path,
            get(move || {
                let document = document.clone();
                async move { ([(header::CACHE_CONTROL, "public, max-age=300")], Json(document)) }
            }),
        )
    }
}

impl Inner {
    fn challenge(&self) -> Challenge {
        Challenge::new("Bearer").with("resource_metadata", self.admission.resource.metadata_url())
    }

    fn refuse(&self, why: NotAdmitted) -> Refused {
        let reason = match why {
            NotAdmitted::NoToken => "token.none",
            NotAdmitted::InvalidToken(_) => "token.invalid",
            NotAdmitted::InvalidProof => "token.proof",
            NotAdmitted::Unavailable => "token.unchecked",
        };
        Refused { reason, response: self.answer_to(why) }
    }

    fn answer_to(&self, why: NotAdmitted) -> Response<Body> {
        let scope = self.required.to_string();
        let scoped = |challenge: Challenge| {
            if scope.is_empty() { challenge } else { challenge.with("scope", scope.clone()) }
        };
        match why {
            // No `error` if no token was sent (RFC 6750 section 3).
            NotAdmitted::NoToken => answer(
                StatusCode::UNAUTHORIZED,
                Some(&scoped(self.challenge())),
                "This MCP server needs an access token; see WWW-Authenticate.",
            ),
            NotAdmitted::InvalidToken(what) => {
                let challenge = self
                    .challenge()
                    .with("error", "invalid_token")
                    .with("error_description", what.as_ref());
                answer(StatusCode::UNAUTHORIZED, Some(&scoped(challenge)), &what)
            }
            NotAdmitted::InvalidProof => {
                let mut challenge = self.challenge().with("error", "invalid_dpop_proof");
                "DPoP".clone_into(&mut challenge.scheme);
                let text = "The DPoP proof is missing, used before, or not for this request.";
                answer(StatusCode::UNAUTHORIZED, Some(&challenge), text)
            }
            NotAdmitted::Unavailable => {
                let text = "The token cannot be checked just now; try again.";
                let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, None, text);
                let seconds = HeaderValue::from_static("5");
                response.headers_mut().insert(header::RETRY_AFTER, seconds);
                response
            }
        }
    }

    /// Checks Host and Origin against the configured lists, on every transport (MCP transports,
    /// Streamable HTTP).
    fn check_origin(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Refused> {
        // HTTP/2 carries the host in the URI.
        let mut hosts = headers.get_all(header::HOST).iter().map(HeaderValue::to_str);
        let host = match (hosts.next(), uri.authority()) {
            (Some(Ok(host)), _) => Some(host.to_ascii_lowercase()),
            (None, Some(authority)) => Some(authority.as_str().to_ascii_lowercase()),
            _ => None,
        };
        let known = host.is_some_and(|host| {
            // The scheme's default port may be present.
            let bare = host.strip_suffix(":443").or(host.strip_suffix(":80")).unwrap_or(&host);
            self.hosts.contains(&host) || self.hosts.contains(bare)
        });
        if !known || hosts.next().is_some() {
            let text = "This host name is not one of this MCP server's.";
            let response = answer(StatusCode::MISDIRECTED_REQUEST, None, text);
            return Err(Refused { reason: "request.host", response });
        }
        let allowed = |origin: &HeaderValue| {
            origin.to_str().is_ok_and(|origin| self.origins.contains(origin))
        };
        if !headers.get_all(header::ORIGIN).iter().all(allowed) {
            let text = "Pages of this origin may not call this MCP server.";
            let response = answer(StatusCode::FORBIDDEN, None, text);
            return Err(Refused { reason: "request.origin", response });
        }
        Ok(())
    }

    /// The scopes that the operation in `body` needs: those of every request, and those of each
    /// called tool. Only the body decides, never a header.
    fn needed_by(&self, body: &[u8]) -> Result<Scopes, Response<Body>> {
        if self.tools.is_empty() || body.is_empty() {
            return Ok(self.required.clone());
        }
        let unreadable = || {
            let text = "The request is not JSON-RPC with distinct members.";
            answer(StatusCode::BAD_REQUEST, None, text)
        };
        let body = parse_json(body).map_err(|_| unreadable())?;
        let messages = match &body {
            Value::Array(batch) => batch.iter().collect(),
            single @ Value::Object(_) => vec![single],
            _ => return Err(unreadable()),
        };
        let mut needed = self.required.clone();
        for message in messages {
            if message.get("method").and_then(Value::as_str) == Some("tools/call") {
                let name = message.pointer("/params/name").and_then(Value::as_str);
                if let Some(scopes) = name.and_then(|name| self.tools.get(name)) {
                    needed = needed.union(scopes);
                }
            }
        }
        Ok(needed)
    }
}

/// A JSON-RPC error, which MCP clients of either era can read.
fn answer(status: StatusCode, challenge: Option<&Challenge>, text: &str) -> Response<Body> {
    let body = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32001, "message": text}});
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(value) = challenge.and_then(|c| HeaderValue::from_str(&c.to_header()).ok()) {
        headers.insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

/// Host and port of a URL, as in a `Host` header.
fn authority(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

impl<S> Layer<S> for Guard {
    type Service = GuardedService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        GuardedService { guard: Arc::clone(&self.0), inner }
    }
}

/// An MCP server behind a [`Guard`].
#[derive(Clone)]
pub struct GuardedService<S> {
    guard: Arc<Inner>,
    inner: S,
}

impl<S> Service<Request<Body>> for GuardedService<S>
where
    S: Service<Request<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Response: IntoResponse,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let guard = Arc::clone(&self.guard);
        let inner = self.inner.clone();
        Box::pin(async move {
            let (request, token) = match Guard(Arc::clone(&guard)).let_in(request).await {
                Ok(admitted) => admitted,
                Err(refusal) => return Ok(refusal),
            };
            let caller = request.extensions().get::<Caller>().cloned();
            let response = inner.oneshot(request).await.into_response();
            Ok(match (&guard.introspection, caller) {
                (Some(introspection), Some(caller)) => {
                    until_its_token_ends(response, introspection, caller, token)
                }
                _ => response,
            })
        })
    }
}

/// The token that was checked at admission, from the one header that may contain it.
pub fn token_of(headers: &HeaderMap) -> &str {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    header.and_then(|header| header.split_once(' ')).map_or("", |(_, token)| token.trim())
}

impl Guard {
    /// 403 that names all scopes the operation needs (RFC 6750 section 3.1; MCP authorization,
    /// Scope Challenge Handling).
    fn insufficient(&self, needed: &Scopes) -> Response<Body> {
        let text = format!("This operation needs the scopes: {needed}");
        answer(StatusCode::FORBIDDEN, Some(&self.insufficient_scope(needed)), &text)
    }

    /// The request as it is passed on, and the token that came with it.
    async fn let_in(
        &self,
        request: Request<Body>,
    ) -> Result<(Request<Body>, Secret), Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let admitted = self.admit(parts.method.as_str(), &parts.uri, &parts.headers).await;
        let caller = admitted.map_err(|refused| refused.response)?;
        let inner = &self.0;
        let body = if inner.tools.is_empty() {
            if !caller.scopes().contains_all(&inner.required) {
                return Err(self.insufficient(&inner.required));
            }
            body
        } else {
            let bytes = read(body).await?;
            let needed = inner.needed_by(&bytes)?;
            if !caller.scopes().contains_all(&needed) {
                return Err(self.insufficient(&needed));
            }
            Body::from(bytes)
        };
        // The token is not passed on (MCP authorization, Access Token Usage): the server behind
        // does not need it.
        let token = Secret::new(token_of(&parts.headers));
        parts.headers.remove(header::AUTHORIZATION);
        parts.headers.remove("dpop");
        parts.extensions.insert(caller);
        Ok((Request::from_parts(parts, body), token))
    }
}

/// A stream of events ends with the token that it was asked for with. Any other answer goes out as it is.
fn until_its_token_ends(
    response: Response<Body>,
    introspection: &Arc<Introspection>,
    caller: Caller,
    token: Secret,
) -> Response<Body> {
    const EVENTS: &[u8] = b"text/event-stream";
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let kind = kind.and_then(|kind| kind.get(..EVENTS.len()));
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS)) {
        return response;
    }
    let introspection = Arc::clone(introspection);
    let ended = async move { introspection.ended(&caller, &token).await };
    let ended = Box::pin(ended);
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(ended)))
}

async fn read(body: Body) -> Result<Bytes, Response<Body>> {
    let read = Limited::new(body, LARGEST).collect().await;
    read.map(http_body_util::Collected::to_bytes).map_err(|_| {
        let text = "The request body is larger than 4 MiB, or broke off.";
        answer(StatusCode::PAYLOAD_TOO_LARGE, None, text)
    })
}
