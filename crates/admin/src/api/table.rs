//! The table of operations: each is written once, and gives a route, the required rights, and an
//! entry of the OpenAPI document.

mod document;
mod signals;

use super::{
    problem::refuse,
    request::{Acting, QueryParams, Said},
};
use crate::{
    acts::{
        self, ActError, ManagedKind, Switched, administrators, audit, clients,
        context::Need::{self, Appoint, Change, CutOff, Read},
        cut_off::{self, CutsOff},
        explain::explain,
        people, provisioning, trust, upstreams,
    },
    servers::{Administration, IdpAdmin, RasAdmin},
    types::{
        Accounts, Administrators, AuditQuery, AuditView, AuthorizationServers, ClientHosts,
        Clients, Connections, CutOffPreview, CutOffReport, Dependents, ExplainQuestion,
        Explanation, GovernedResources, Groups, InstallationView, KeyMade, KeyView, Kind, LinkView,
        ListQuery, Listed, NewPassword, NewPersonLink, NewProvisioningToken, NewRecoveryLink,
        NewSecret, Nothing, PersonLinkQuery, PersonLinkView, ProvisioningTokenView,
        RecoveryLinkView, Renewal, Resources, Rotation, SecretView, SessionView, TrustedIssuers,
        UnreadableRecord, UpstreamLeg, Upstreams, UserView, Users, WhoseQuery,
    },
};
use axum::{
    Json, Router,
    extract::Path,
    handler::Handler,
    http::{HeaderValue, Method, Response, StatusCode, header},
    response::IntoResponse,
    routing::{MethodFilter, on},
};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{Ref, RefOr, Schema},
};

pub use document::document_text;

type Answer<T> = Result<Json<T>, ActError>;
type Schemas = Vec<(String, RefOr<Schema>)>;

/// What the OpenAPI document says about an operation besides its route.
struct Op {
    method: Method,
    path: String,
    need: Need,
    summary: String,
    query: Option<RefOr<Schema>>,
    body: Option<RefOr<Schema>>,
    answer: Option<RefOr<Schema>>,
    conditional: bool,
    tagged: bool,
    schemas: Schemas,
}

impl Op {
    fn new(method: Method, path: impl Into<String>, need: Need, summary: &str) -> Self {
        Self {
            method,
            path: path.into(),
            need,
            summary: summary.to_owned(),
            query: None,
            body: None,
            answer: None,
            conditional: false,
            tagged: false,
            schemas: Vec::new(),
        }
    }

    fn named<T: ToSchema>(&mut self) -> RefOr<Schema> {
        let name = T::name().into_owned();
        self.schemas.push((name.clone(), T::schema()));
        T::schemas(&mut self.schemas);
        RefOr::Ref(Ref::from_schema_name(name))
    }

    fn query<T: ToSchema>(mut self) -> Self {
        self.query = Some(<T as PartialSchema>::schema());
        T::schemas(&mut self.schemas);
        self
    }

    fn body<T: ToSchema>(mut self) -> Self {
        self.body = Some(self.named::<T>());
        self
    }

    fn answer<T: ToSchema>(mut self) -> Self {
        self.answer = Some(self.named::<T>());
        self
    }

    /// The response is a list; each kind of list has its own schema.
    fn list<T: ToSchema>(mut self) -> Self
    where
        Listed<T>: PartialSchema,
    {
        let one = T::name().into_owned();
        self.schemas.push((one.clone(), T::schema()));
        T::schemas(&mut self.schemas);
        let unreadable = UnreadableRecord::name().into_owned();
        self.schemas.push((unreadable, UnreadableRecord::schema()));
        let name = format!("{one}List");
        self.schemas.push((name.clone(), Listed::<T>::schema()));
        self.answer = Some(RefOr::Ref(Ref::from_schema_name(name)));
        self
    }

    /// It supports `If-Match`.
    fn conditional(mut self) -> Self {
        self.conditional = true;
        self
    }

    /// Its response has an `ETag`.
    fn tagged(mut self) -> Self {
        self.tagged = true;
        self
    }
}

/// The operations below one path.
pub(super) struct Table<S> {
    router: Router<S>,
    ops: Vec<Op>,
    /// The path prefix of the server: `/idp`, `/ras/{ras}`.
    base: &'static str,
}

/// The rights that each route requires, by method and path below the server's prefix.
pub(super) type Needs = BTreeMap<(String, String), Need>;

impl<A: Administration> Table<A> {
    fn new(base: &'static str) -> Self {
        Self { router: Router::new(), ops: Vec::new(), base }
    }

    fn op<H, T>(mut self, op: Op, handler: H) -> Self
    where
        H: Handler<T, A>,
        T: 'static,
    {
        let filter = match op.method {
            Method::GET => MethodFilter::GET,
            Method::PATCH => MethodFilter::PATCH,
            Method::DELETE => MethodFilter::DELETE,
            _ => MethodFilter::POST,
        };
        self.router = self.router.route(&op.path, on(filter, handler));
        self.ops.push(op);
        self
    }

    /// The operations of a kind of record: list, add, show, change, delete.
    fn kind<K: ManagedKind<A>>(self, what: &str) -> Self
    where
        Listed<K::View>: PartialSchema,
    {
        let all = format!("/{}", K::PATH);
        let one = format!("/{}/{{id}}", K::PATH);
        let names = format!("/{}/{{id}}/dependents", K::PATH);
        let change = if K::PATH == Administrators::PATH { Appoint } else { Change };
        self.op(
            Op::new(Method::GET, &all, Read, &format!("List {what}s"))
                .query::<ListQuery>()
                .list::<K::View>(),
            list::<A, K>,
        )
        .op(
            Op::new(Method::POST, &all, change, &format!("Add a {what}"))
                .body::<K::New>()
                .answer::<K::View>(),
            add::<A, K>,
        )
        .op(
            Op::new(Method::GET, &one, Read, &format!("Show a {what}"))
                .answer::<K::View>()
                .tagged(),
            show::<A, K>,
        )
        .op(
            Op::new(
                Method::PATCH,
                &one,
                change,
                &format!("Change a {what}; what is left out stays"),
            )
            .body::<K::Change>()
            .answer::<K::View>()
            .conditional(),
            alter::<A, K>,
        )
        .op(
            Op::new(Method::DELETE, &one, change, &format!("Delete a {what}, and what it had"))
                .conditional(),
            delete::<A, K>,
        )
        .op(
            Op::new(
                Method::GET,
                &names,
                Read,
                &format!("What goes with a {what} when it is deleted"),
            )
            .answer::<Dependents>(),
            dependents::<A, K>,
        )
    }

    /// Like [`Self::kind`], for a kind that can also be disabled and enabled.
    fn switched<K: Switched<A>>(self, what: &str) -> Self
    where
        Listed<K::View>: PartialSchema,
    {
        let off = format!("/{}/{{id}}/disable", K::PATH);
        let on = format!("/{}/{{id}}/enable", K::PATH);
        self.kind::<K>(what)
            .op(
                Op::new(Method::POST, off, CutOff, &format!("Switch a {what} off, at once"))
                    .answer::<K::View>()
                    .conditional(),
                disable::<A, K>,
            )
            .op(
                Op::new(Method::POST, on, Change, &format!("Switch a {what} on again"))
                    .answer::<K::View>()
                    .conditional(),
                enable::<A, K>,
            )
    }

    /// The operations that both servers have.
    fn common(self) -> Self {
        self.kind::<Administrators>("administrator")
            .op(
                Op::new(
                    Method::POST,
                    "/administrators/{id}/renew",
                    Appoint,
                    "Give an administrator another token; the one before ends at once",
                )
                .body::<Renewal>()
                .answer::<crate::types::AdministratorView>(),
                renew::<A>,
            )
            .op(
                Op::new(Method::POST, "/clients/{id}/secret", Change, "Give a client a new secret")
                    .body::<NewSecret>()
                    .answer::<SecretView>(),
                secret::<A>,
            )
            .op(
                Op::new(Method::GET, "/sessions", Read, "List sign-ins that stand")
                    .query::<WhoseQuery>()
                    .list::<SessionView>(),
                sessions::<A>,
            )
            .op(
                Op::new(Method::DELETE, "/sessions/{id}", CutOff, "End a sign-in and what it brought"),
                end_session::<A>,
            )
            .op(
                Op::new(Method::GET, "/keys", Read, "List signing keys")
                    .list::<KeyView>(),
                keys::<A>,
            )
            .op(
                Op::new(
                    Method::POST,
                    "/keys/rotate",
                    Change,
                    "Make a new signing key: published at once, signing ten minutes later",
                )
                .body::<Rotation>()
                .answer::<KeyMade>(),
                rotate::<A>,
            )
            .op(
                Op::new(
                    Method::POST,
                    "/keys/{id}/retire",
                    Change,
                    "Have the next key sign in place of this one, at once; what it signed is still believed",
                )
                .answer::<KeyMade>(),
                retire_key::<A>,
            )
            .op(
                Op::new(
                    Method::DELETE,
                    "/keys/{id}",
                    Change,
                    "Remove a signing key and those before it: nothing that they signed is believed any more",
                ),
                remove_key::<A>,
            )
            .op(
                Op::new(Method::GET, "/audit", Read, "Read the audit trail, newest first")
                    .query::<AuditQuery>()
                    .list::<AuditView>(),
                read_audit::<A>,
            )
    }

    /// The operations that cut off what a server has.
    fn cut_offs(self) -> Self
    where
        A: CutsOff,
    {
        self.op(
            Op::new(
                Method::POST,
                "/cut-offs",
                CutOff,
                "Cut off: end all that came by way of it, and switch it off",
            )
            .body::<A::Request>()
            .answer::<CutOffReport>(),
            cut_off::<A>,
        )
        .op(
            Op::new(
                Method::POST,
                "/cut-offs/preview",
                Read,
                "What would a cut-off end now? Nothing is changed",
            )
            .body::<A::Request>()
            .answer::<CutOffPreview>(),
            preview_cut_off::<A>,
        )
        .op(
            Op::new(
                Method::GET,
                "/cut-offs/{id}",
                Read,
                "What a cut-off, or another act that switched something off, has ended until now, where and when",
            )
            .answer::<CutOffReport>(),
            report_cut_off::<A>,
        )
    }

    pub(super) fn needs(&self) -> Needs {
        self.ops.iter().map(|op| ((op.method.to_string(), op.path.clone()), op.need)).collect()
    }

    /// The routes. Unknown paths and methods get errors in the common format.
    pub(super) fn router(self, of: A) -> Router {
        let none = || async {
            refuse(
                StatusCode::NOT_FOUND,
                "there is nothing at this path",
                Some(
                    "`/openapi.json` lists what there is; some things are administered at an identity provider alone, others at an authorization server",
                ),
            )
        };
        let method = || async {
            refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path does not take this method",
                Some("`/openapi.json` lists what there is"),
            )
        };
        self.router.fallback(none).method_not_allowed_fallback(method).with_state(of)
    }
}

impl Table<IdpAdmin> {
    /// The operations on upstreams: their people, and how they provision them.
    fn upstreams(self) -> Self {
        self.switched::<Upstreams>("upstream identity provider")
            .op(
                Op::new(
                    Method::GET,
                    "/upstreams/{id}/links",
                    Read,
                    "List the people of an upstream who are linked to users, 1000 at most",
                )
                .list::<PersonLinkView>(),
                person_links,
            )
            .op(
                Op::new(
                    Method::POST,
                    "/upstreams/{id}/links",
                    Change,
                    "Link a person of an upstream to a user",
                )
                .body::<NewPersonLink>()
                .answer::<Nothing>(),
                link_person,
            )
            .op(
                Op::new(
                    Method::DELETE,
                    "/upstreams/{id}/links",
                    CutOff,
                    "Unlink a person of an upstream; the user's sign-ins end",
                )
                .query::<PersonLinkQuery>(),
                unlink_person,
            )
            .op(
                Op::new(
                    Method::GET,
                    "/upstreams/{id}/provisioning-tokens",
                    Read,
                    "List the tokens with which an upstream provisions people, without the secrets",
                )
                .list::<ProvisioningTokenView>(),
                provisioning_tokens,
            )
            .op(
                Op::new(
                    Method::POST,
                    "/upstreams/{id}/provisioning-tokens",
                    Change,
                    "Make a token with which an upstream provisions people (SCIM); it is shown once",
                )
                .body::<NewProvisioningToken>()
                .answer::<ProvisioningTokenView>(),
                add_provisioning_token,
            )
            .op(
                Op::new(
                    Method::DELETE,
                    "/upstreams/{id}/provisioning-tokens/{token}",
                    CutOff,
                    "Revoke a token with which an upstream provisions people, at once",
                ),
                revoke_provisioning_token,
            )
            .op(
                Op::new(
                    Method::POST,
                    "/upstreams/{id}/check",
                    Change,
                    "Look at every leg of an upstream: who has to change what",
                )
                .list::<UpstreamLeg>(),
                check_upstream,
            )
    }
}

pub(super) fn idp() -> Table<IdpAdmin> {
    Table::new("/idp")
        .switched::<Users>("person")
        .op(
            Op::new(
                Method::POST,
                "/users/{id}/password",
                Change,
                "Set a person's password; they are signed out everywhere",
            )
            .body::<NewPassword>()
            .answer::<UserView>()
            .conditional(),
            set_password,
        )
        .op(
            Op::new(
                Method::POST,
                "/users/{id}/recovery-link",
                Change,
                "Make a link by which a person gets in once, to make another way to sign in",
            )
            .body::<NewRecoveryLink>()
            .answer::<RecoveryLinkView>(),
            recovery_link,
        )
        .kind::<Groups>("group")
        .switched::<Clients>("client")
        .switched::<AuthorizationServers>("resource authorization server")
        .switched::<Resources>("MCP server")
        .switched::<Connections>("connection")
        .upstreams()
        .op(
            Op::new(
                Method::GET,
                "/installations",
                Read,
                "List installations, those used last first",
            )
            .query::<WhoseQuery>()
            .list::<InstallationView>(),
            installations,
        )
        .op(
            Op::new(
                Method::DELETE,
                "/installations/{id}",
                CutOff,
                "Cut an installation off, at once",
            ),
            revoke_installation,
        )
        .op(
            Op::new(
                Method::POST,
                "/explain",
                Read,
                "Would this person, through this client, get these scopes on that MCP server?",
            )
            .body::<ExplainQuestion>()
            .answer::<Explanation>(),
            explained,
        )
        .transmitters()
        .streams()
        .cut_offs()
        .common()
}

pub(super) fn ras() -> Table<RasAdmin> {
    Table::new("/ras/{ras}")
        .switched::<TrustedIssuers>("trusted issuer")
        .switched::<Clients>("client")
        .switched::<ClientHosts>("origin of client metadata documents")
        .switched::<GovernedResources>("MCP server")
        .switched::<Accounts>("account")
        .op(
            Op::new(
                Method::GET,
                "/accounts/{id}/links",
                Read,
                "List the people whom an account belongs to",
            )
            .list::<LinkView>(),
            links,
        )
        .op(
            Op::new(
                Method::DELETE,
                "/links",
                CutOff,
                "Take an account away from somebody it was linked to by mistake",
            )
            .query::<LinkView>(),
            unlink,
        )
        .transmitters()
        .cut_offs()
        .common()
}

async fn list<A: Administration, K: ManagedKind<A>>(
    acting: Acting<A>,
    QueryParams(query): QueryParams<ListQuery>,
) -> Answer<Listed<K::View>> {
    acts::list::<A, K>(&acting.of, &acting.context, query).await.map(Json)
}

async fn add<A: Administration, K: ManagedKind<A>>(
    acting: Acting<A>,
    Said(new): Said<K::New>,
) -> Answer<K::View> {
    K::add(&acting.of, &acting.context, new).await.map(Json)
}

async fn show<A: Administration, K: ManagedKind<A>>(
    acting: Acting<A>,
    Path(id): Path<String>,
) -> Result<Response<axum::body::Body>, ActError> {
    let (view, tag) = acts::show::<A, K>(&acting.of, &acting.context, &id).await?;
    let mut response = Json(view).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

async fn alter<A: Administration, K: ManagedKind<A>>(
    acting: Acting<A>,
    Path(id): Path<String>,
    Said(change): Said<K::Change>,
) -> Answer<K::View> {
    let (of, context) = (&acting.of, &acting.context);
    let id = K::id_of(of, context, &id).await?;
    K::change(of, context, &id, change).await.map(Json)
}

async fn delete<A: Administration, K: ManagedKind<A>>(
    acting: Acting<A>,
    Path(id): Path<String>,
) -> Result<StatusCode, ActError> {
    acts::delete::<A, K>(&acting.of, &acting.context, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn dependents<A: Administration, K: ManagedKind<A>>(
    acting: Acting<A>,
    Path(id): Path<String>,
) -> Answer<Dependents> {
    let (of, context) = (&acting.of, &acting.context);
    let named = id;
    let id = K::id_of(of, context, &named).await?;
    // Also if it cannot be read.
    if context.store.id_of::<K::Record>(&id, &id).await?.is_none() {
        return Err(ActError::missing(K::NOUN, &named));
    }
    K::dependents(of, context, &id).await.map(Json)
}

async fn disable<A: Administration, K: Switched<A>>(
    acting: Acting<A>,
    Path(id): Path<String>,
) -> Answer<K::View> {
    switch::<A, K>(acting, &id, true).await
}

async fn enable<A: Administration, K: Switched<A>>(
    acting: Acting<A>,
    Path(id): Path<String>,
) -> Answer<K::View> {
    switch::<A, K>(acting, &id, false).await
}

async fn switch<A: Administration, K: Switched<A>>(
    acting: Acting<A>,
    id: &str,
    disabled: bool,
) -> Answer<K::View> {
    let (of, context) = (&acting.of, &acting.context);
    let id = K::id_of(of, context, id).await?;
    K::switch(of, context, &id, disabled).await.map(Json)
}

async fn renew<A: Administration>(
    acting: Acting<A>,
    Path(name): Path<String>,
    Said(renewal): Said<Renewal>,
) -> Answer<crate::types::AdministratorView> {
    administrators::renew(&acting.context, &name, renewal).await.map(Json)
}

async fn secret<A: Administration>(
    acting: Acting<A>,
    Path(id): Path<String>,
    Said(new): Said<NewSecret>,
) -> Answer<SecretView> {
    clients::new_secret(&acting.context, &id, new).await.map(Json)
}

async fn sessions<A: Administration>(
    acting: Acting<A>,
    QueryParams(whose): QueryParams<WhoseQuery>,
) -> Answer<Listed<SessionView>> {
    people::sessions(&acting.of, &acting.context, whose).await.map(Json)
}

async fn end_session<A: Administration>(
    acting: Acting<A>,
    Path(id): Path<String>,
) -> Result<StatusCode, ActError> {
    people::end_session(&acting.context, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn cut_off<A: CutsOff>(
    acting: Acting<A>,
    Said(request): Said<A::Request>,
) -> Answer<CutOffReport> {
    cut_off::cut_off(&acting.of, &acting.context, request).await.map(Json)
}

async fn preview_cut_off<A: CutsOff>(
    acting: Acting<A>,
    Said(request): Said<A::Request>,
) -> Answer<CutOffPreview> {
    cut_off::preview(&acting.of, &acting.context, request).await.map(Json)
}

async fn report_cut_off<A: CutsOff>(
    acting: Acting<A>,
    Path(id): Path<String>,
) -> Answer<CutOffReport> {
    cut_off::report(&acting.of, &acting.context, &id).await.map(Json)
}

async fn keys<A: Administration>(acting: Acting<A>) -> Answer<Listed<KeyView>> {
    acting.context.keys().await.map(Json)
}

async fn rotate<A: Administration>(
    acting: Acting<A>,
    Said(rotation): Said<Rotation>,
) -> Answer<KeyMade> {
    acting.context.rotate_key(rotation).await.map(Json)
}

async fn retire_key<A: Administration>(
    acting: Acting<A>,
    Path(kid): Path<String>,
) -> Answer<KeyMade> {
    acting.context.retire_key(&kid).await.map(Json)
}

async fn remove_key<A: Administration>(
    acting: Acting<A>,
    Path(kid): Path<String>,
) -> Result<StatusCode, ActError> {
    acting.context.remove_key(&kid).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn read_audit<A: Administration>(
    acting: Acting<A>,
    QueryParams(query): QueryParams<AuditQuery>,
) -> Answer<Listed<AuditView>> {
    audit::audit(&acting.of, &acting.context, query).await.map(Json)
}

async fn set_password(
    acting: Acting<IdpAdmin>,
    Path(id): Path<String>,
    Said(new): Said<NewPassword>,
) -> Answer<UserView> {
    people::set_password(&acting.of, &acting.context, &id, new).await.map(Json)
}

async fn recovery_link(
    acting: Acting<IdpAdmin>,
    Path(id): Path<String>,
    Said(new): Said<NewRecoveryLink>,
) -> Answer<RecoveryLinkView> {
    people::recovery_link(&acting.of, &acting.context, &id, new).await.map(Json)
}

async fn installations(
    acting: Acting<IdpAdmin>,
    QueryParams(whose): QueryParams<WhoseQuery>,
) -> Answer<Listed<InstallationView>> {
    people::installations(&acting.of, &acting.context, whose).await.map(Json)
}

async fn revoke_installation(
    acting: Acting<IdpAdmin>,
    Path(id): Path<String>,
) -> Result<StatusCode, ActError> {
    people::revoke_installation(&acting.of, &acting.context, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn explained(
    acting: Acting<IdpAdmin>,
    Said(question): Said<ExplainQuestion>,
) -> Answer<Explanation> {
    explain(&acting.of, &acting.context, question).await.map(Json)
}

async fn links(acting: Acting<RasAdmin>, Path(id): Path<String>) -> Answer<Listed<LinkView>> {
    trust::links(&acting.of, &acting.context, &id).await.map(Json)
}

async fn unlink(
    acting: Acting<RasAdmin>,
    QueryParams(link): QueryParams<LinkView>,
) -> Result<StatusCode, ActError> {
    trust::unlink(&acting.context, link).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn provisioning_tokens(
    acting: Acting<IdpAdmin>,
    Path(id): Path<String>,
) -> Answer<Listed<ProvisioningTokenView>> {
    provisioning::list(&acting.of, &acting.context, &id).await.map(Json)
}

async fn add_provisioning_token(
    acting: Acting<IdpAdmin>,
    Path(id): Path<String>,
    Said(new): Said<NewProvisioningToken>,
) -> Answer<ProvisioningTokenView> {
    provisioning::add(&acting.of, &acting.context, &id, new).await.map(Json)
}

async fn revoke_provisioning_token(
    acting: Acting<IdpAdmin>,
    Path((id, token)): Path<(String, String)>,
) -> Result<StatusCode, ActError> {
    provisioning::revoke(&acting.context, &id, &token).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn person_links(
    acting: Acting<IdpAdmin>,
    Path(id): Path<String>,
) -> Answer<Listed<PersonLinkView>> {
    upstreams::links(&acting.context, &id).await.map(Json)
}

async fn link_person(
    acting: Acting<IdpAdmin>,
    Path(id): Path<String>,
    Said(new): Said<NewPersonLink>,
) -> Answer<Nothing> {
    upstreams::link(&acting.of, &acting.context, &id, new).await.map(Json)
}

async fn unlink_person(
    acting: Acting<IdpAdmin>,
    Path(id): Path<String>,
    QueryParams(said): QueryParams<PersonLinkQuery>,
) -> Result<StatusCode, ActError> {
    upstreams::unlink(&acting.context, &id, said).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn check_upstream(
    acting: Acting<IdpAdmin>,
    Path(id): Path<String>,
) -> Answer<Listed<UpstreamLeg>> {
    upstreams::check(&acting.of, &acting.context, &id).await.map(Json)
}

/// A JSON response of something that is not an act.
pub(super) fn json(value: &impl Serialize) -> Response<axum::body::Body> {
    Json(value).into_response()
}
