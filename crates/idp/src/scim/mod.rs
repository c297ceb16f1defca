//! Provisioning by an upstream (SCIM 2.0: RFC 7643, RFC 7644): people and groups come, change and go
//! as the company's directory says. Below `/scim/NAME/v2`, with a token of that upstream.

mod attributes;
mod bulk;
mod discovery;
mod error;
mod filter;
mod groups;
mod patch;
mod person;
mod users;

use crate::state::Idp;
use attributes::Kind;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Method, Response, StatusCode, header, request::Parts},
    routing::any,
};
use error::{ScimError, answer};
use passavant_authority::{
    admission::Sender,
    answer::throttled,
    origin::{bearer_token, origin_of},
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    identifier::Issuer,
    jose::claims::parse_json,
    oidc::upstream::{UpstreamProvider, provisioning_path},
};
use passavant_store::{AuditEvent, NotProvisioned, Provisioner, StoreError};
use serde_json::Value;

/// The largest body, in bytes.
const LARGEST: usize = 2 * 1024 * 1024;

/// The routes.
pub(crate) fn routes(base: &str) -> Router<Idp> {
    let root = format!("{base}{}", provisioning_path("{upstream}"));
    Router::new()
        .route(&root, any(provision))
        .route(&format!("{root}/"), any(provision))
        .route(&format!("{root}/{{*rest}}"), any(provision))
}

/// Who asks, and what for.
struct Asked {
    idp: Idp,
    by: Provisioner,
    upstream: UpstreamProvider,
    /// The address of everything below.
    base: String,
    method: Method,
    /// The steps of the path below the base.
    path: Vec<String>,
    query: Vec<(String, String)>,
    if_match: Option<String>,
    if_none_match: Option<String>,
    body: Bytes,
}

/// What is answered.
struct Answer {
    status: StatusCode,
    body: Option<Value>,
    /// `Location` of what was made, and `ETag`.
    location: Option<String>,
    version: Option<String>,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self::with(StatusCode::OK, body)
    }

    /// A resource, with its address and version.
    fn with(status: StatusCode, body: Value) -> Self {
        let meta = |member: &str| body["meta"][member].as_str().map(str::to_owned);
        let location = meta("location").filter(|_| status == StatusCode::CREATED);
        Self { status, location, version: meta("version"), body: Some(body) }
    }

    const fn empty(status: StatusCode) -> Self {
        Self { status, body: None, location: None, version: None }
    }

    fn response(self) -> Response<Body> {
        let mut response = match &self.body {
            Some(body) => answer(self.status, body),
            None => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = self.status;
                response
            }
        };
        let headers = response.headers_mut();
        for (name, value) in [(header::LOCATION, self.location), (header::ETAG, self.version)] {
            if let Some(value) = value.and_then(|value| value.parse().ok()) {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// The database failed: nothing is known of what was done.
fn broken(error: &StoreError) -> ScimError {
    tracing::error!(%error, "provisioning failed: the database could not be used");
    ScimError::new(StatusCode::SERVICE_UNAVAILABLE, "the server cannot answer just now; try again")
}

/// A change that the store did not make.
fn not_made(error: NotProvisioned<ScimError>) -> ScimError {
    match error {
        NotProvisioned::Missing => ScimError::missing(),
        NotProvisioned::Taken => ScimError::taken(
            "the name belongs to somebody, or some group, that this upstream does not provision; an administrator \
             links a person by `passavant admin upstream link`, and lets a group stand for one that is here by \
             `passavant admin upstream change --group`",
        ),
        NotProvisioned::NoGroup(group) => ScimError::taken(format!(
            "an administrator had mapped this group to `{group}`; that group is gone, or the mapping was taken back"
        )),
        NotProvisioned::Overtaken => ScimError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "another change of this group overtook this one; try again",
        ),
        NotProvisioned::NoToken => unauthorized(),
        NotProvisioned::Rule(error) => error,
    }
}

fn never<T>(error: NotProvisioned<std::convert::Infallible>) -> NotProvisioned<T> {
    match error {
        NotProvisioned::Missing => NotProvisioned::Missing,
        NotProvisioned::Taken => NotProvisioned::Taken,
        NotProvisioned::NoGroup(group) => NotProvisioned::NoGroup(group),
        NotProvisioned::Overtaken => NotProvisioned::Overtaken,
        NotProvisioned::NoToken => NotProvisioned::NoToken,
        NotProvisioned::Rule(rule) => match rule {},
    }
}

/// One text for a token that is missing, wrong or over, and for an upstream that is not there.
fn unauthorized() -> ScimError {
    ScimError::new(
        StatusCode::UNAUTHORIZED,
        "a token of this upstream is needed, which stands: `passavant admin upstream token` makes one",
    )
}

async fn provision(State(idp): State<Idp>, request: Request) -> Response<Body> {
    match admitted(idp, request).await {
        Ok(asked) => {
            let done = asked.done().await;
            done.map_or_else(|error| error.answer(), Answer::response)
        }
        Err(response) => response,
    }
}

/// Whose token it is: before the body is read.
async fn admitted(idp: Idp, request: Request) -> Result<Asked, Response<Body>> {
    let (parts, body) = request.into_parts();
    let (by, upstream, path) = authenticated(&idp, &parts).await?;
    let base = idp.issuer().endpoint(&provisioning_path(&upstream.name));
    let body = axum::body::to_bytes(body, LARGEST).await;
    let body = body.map_err(|_| {
        ScimError::too_large(format!("the body is larger than {LARGEST} bytes")).answer()
    })?;
    // All of them; one that cannot be read fits nothing.
    let header = |name: header::HeaderName| {
        let all = parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
        let all: Vec<&str> = all.collect();
        (!all.is_empty()).then(|| all.join(","))
    };
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    Ok(Asked {
        by,
        base,
        upstream,
        method: parts.method.clone(),
        path,
        query: form_urlencoded::parse(query).into_owned().collect(),
        if_match: header(header::IF_MATCH),
        if_none_match: header(header::IF_NONE_MATCH),
        body,
        idp,
    })
}

/// The upstream and the path below its base, as they were sent.
fn place(issuer: &Issuer, path: &str) -> Option<(String, Vec<String>)> {
    let below = path.strip_prefix(issuer.path())?.strip_prefix("/scim/")?;
    let (upstream, rest) = below.split_once('/')?;
    let rest = rest.strip_prefix("v2")?;
    // What is no text is the name of nothing.
    let step =
        |step: &str| percent_encoding::percent_decode_str(step).decode_utf8_lossy().into_owned();
    let steps = rest.split('/').filter(|step| !step.is_empty()).map(step);
    Some((upstream.to_owned(), steps.collect()))
}

/// Whether a text can be an id of this server: anything else is the id of nothing.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

async fn authenticated(
    idp: &Idp,
    parts: &Parts,
) -> Result<(Provisioner, UpstreamProvider, Vec<String>), Response<Body>> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let (request_id, address) = origin_of(parts);
    let unavailable = |error: StoreError| broken(&error).answer();
    let place = place(idp.issuer(), parts.uri.path());
    let name = place.as_ref().map(|(name, _)| name.clone()).unwrap_or_default();
    let snapshot = authority.fresh().await.map_err(unavailable)?;
    let upstream = snapshot.directory.upstream(&name).cloned();
    let token = match bearer_token(&parts.headers) {
        Some(token) => {
            let held = authority.store.provisioning_token(&name, &token.hash(), now).await;
            held.map_err(unavailable)?
        }
        None => None,
    };
    if let (Some(token), Some(upstream), Some((_, path))) = (token, upstream, place) {
        let by = Provisioner { upstream: upstream.name.clone(), token, request_id };
        return Ok((by, upstream, path));
    }
    // Anybody can ask: the row is counted.
    let sender = Sender::Unproven(address.clone());
    idp.0.admission.refusal(&sender).map_err(|busy| throttled(busy.0))?;
    let event = AuditEvent::granted(RequestEvent::Provisioning, now)
        .with(Detail::Upstream, passavant_proto::others_text::shown(&name, 60))
        .with(Detail::RequestId, request_id)
        .with(Detail::Address, address)
        .refused("provision.token");
    authority.store.note(event, now).await.map_err(unavailable)?;
    Err(unauthorized().answer())
}

impl Asked {
    /// A parameter of the query, which occurs once.
    fn parameter(&self, name: &str) -> Result<Option<&str>, ScimError> {
        let mut all = self.query.iter().filter(|(held, _)| held.eq_ignore_ascii_case(name));
        let first = all.next().map(|(_, value)| value.as_str());
        if all.next().is_some() {
            return Err(ScimError::syntax(format!("`{name}` occurs twice")));
        }
        Ok(first.filter(|value| !value.is_empty()))
    }

    fn json(&self) -> Result<Value, ScimError> {
        // What says a member twice could be read in two ways.
        parse_json(&self.body)
            .map_err(|_| ScimError::syntax("the body is no JSON, or has a member twice"))
    }

    async fn done(&self) -> Result<Answer, ScimError> {
        let steps: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match steps.as_slice() {
            ["Bulk"] => self.bulk().await,
            ["Me", ..] => Err(ScimError::new(
                StatusCode::NOT_IMPLEMENTED,
                "a token is no person: `/Me` stands for nobody",
            )),
            [".search"] if self.method == Method::POST => {
                self.search(&Self::body_page(&self.json()?)?).await
            }
            [] | ["ServiceProviderConfig" | "ResourceTypes" | "Schemas", ..] => {
                self.discovery(&steps)
            }
            _ => {
                let body = if matches!(self.method, Method::POST | Method::PUT | Method::PATCH) {
                    self.json()?
                } else {
                    Value::Null
                };
                self.resource(&self.method, &steps, &body, self.if_match.as_deref()).await
            }
        }
    }

    /// An operation on people or groups, alone or of a bulk request.
    async fn resource(
        &self,
        method: &Method,
        steps: &[&str],
        body: &Value,
        if_match: Option<&str>,
    ) -> Result<Answer, ScimError> {
        let not_allowed = || {
            let detail = format!("{method} is not for this address");
            ScimError::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        };
        let (kind, rest) = match steps {
            ["Users", rest @ ..] => (Kind::User, rest),
            ["Groups", rest @ ..] => (Kind::Group, rest),
            _ => return Err(ScimError::missing()),
        };
        if let [id] = rest
            && *id != ".search"
            && !is_id(id)
        {
            return Err(ScimError::missing());
        }
        match (kind, rest, method.as_str()) {
            (_, [], "GET") => self.list(kind, &self.query_page()?).await,
            (_, [".search"], "POST") => self.list(kind, &Self::body_page(body)?).await,
            (Kind::User, [], "POST") => self.add_user(body).await,
            (Kind::User, [id], "GET") => self.show_user(id).await,
            (Kind::User, [id], "PUT") => self.replace_user(id, body, if_match).await,
            (Kind::User, [id], "PATCH") => self.patch_user(id, body, if_match).await,
            (Kind::User, [id], "DELETE") => self.remove_user(id, if_match).await,
            (Kind::Group, [], "POST") => self.add_group(body).await,
            (Kind::Group, [id], "GET") => self.show_group(id).await,
            (Kind::Group, [id], "PUT") => self.replace_group(id, body, if_match).await,
            (Kind::Group, [id], "PATCH") => self.patch_group(id, body, if_match).await,
            (Kind::Group, [id], "DELETE") => self.remove_group(id, if_match).await,
            (_, [] | [_], _) => Err(not_allowed()),
            _ => Err(ScimError::missing()),
        }
    }
}

/// Whether a resource is the one that the provisioner means (RFC 7644, section 3.14).
fn is_version(wanted: Option<&str>, resource: &Value) -> Result<(), ScimError> {
    is_match(wanted, resource["meta"]["version"].as_str().unwrap_or_default())
}

fn is_match(wanted: Option<&str>, version: &str) -> Result<(), ScimError> {
    let Some(wanted) = wanted else { return Ok(()) };
    if wanted.split(',').any(|one| matches!(one.trim(), "*") || same_version(one, version)) {
        return Ok(());
    }
    let detail = "the resource was changed since: read it again";
    Err(ScimError::new(StatusCode::PRECONDITION_FAILED, detail))
}

/// Weakly compared: with and without `W/`.
fn same_version(one: &str, other: &str) -> bool {
    let bare = |version: &str| version.trim().trim_start_matches("W/").to_owned();
    bare(one) == bare(other)
}
