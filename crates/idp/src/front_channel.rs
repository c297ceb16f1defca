//! The IdP's part of the front channel: people sign in with their password, and continue at once,
//! unless the client is a public one.

use super::{
    asked::hinted,
    directory::{IdpDirectory, Living},
    pushed_request,
    sign_in::{
        own::{self, Step},
        page::{self, Problem},
        session::{Started, changed},
        upstream,
    },
    state::Idp,
};
use axum::{
    body::Body,
    http::{Response, StatusCode, request::Parts},
};
use passavant_authority::{
    admission::Admission,
    answer::broken,
    authority::{Authority, Look, RegisteredClient, Snapshot},
    front_channel::{FrontChannel, Person, Proof, ReadRequest, Reading, Ticket, Unread},
};
use passavant_proto::{
    oauth::authorize::{PageError, RedirectError, Unauthorizable},
    oauth::client::{ClientAuthentication, ENROLLED_CLIENT},
    oauth::form::Form,
};
use passavant_store::{Session, StoreError};
use std::sync::Arc;

impl FrontChannel for Idp {
    type Directory = IdpDirectory;
    type About = ();
    type Who = Arc<Living>;

    fn authority(&self) -> &Authority<IdpDirectory> {
        &self.0.authority
    }

    fn admission(&self) -> &Admission {
        &self.0.admission
    }

    fn cookie_name(&self, name: &str) -> String {
        name.to_owned()
    }

    /// A plain or pushed request. If there is a `request_uri`, other parameters of the front
    /// channel are ignored.
    async fn read(
        &self,
        snapshot: &Snapshot<IdpDirectory>,
        form: &Form,
        client: &RegisteredClient,
    ) -> Result<Reading<()>, Unread> {
        let record = &client.record;
        if record.id == ENROLLED_CLIENT && !self.0.settings.enrolment {
            return Err(PageError::Client.into());
        }
        if let Some(request_uri) = form.optional("request_uri") {
            let hash = pushed_request::hash_of(request_uri).ok_or(PageError::PushedRequest)?;
            let authority = &self.0.authority;
            let pushed = authority.store.open_pushed_request(&hash, &record.id, authority.now());
            let pushed = pushed.await?.filter(|pushed| pushed.request.is_still_taken(record));
            let request = pushed.ok_or(PageError::PushedRequest)?.request;
            return Ok(Reading { request, pushed: Some(hash), about: () });
        }
        let request = hinted((&snapshot.keys.verifying(), self.issuer()), form, record)?;
        if record.require_pushed_authorization_requests {
            let description = "This client has to push its authorization requests (RFC 9126).";
            let error = RedirectError { error: "invalid_request", description };
            let (redirect_uri, state) = (request.redirect_uri, request.state);
            return Err(Unauthorizable::Redirect { redirect_uri, state, error }.into());
        }
        Ok(Reading { request, pushed: None, about: () })
    }

    async fn who(&self, session: &Session) -> Result<Option<Arc<Living>>, StoreError> {
        let authority = &self.0.authority;
        let snapshot = authority.fresh().await?;
        snapshot.directory.person(&authority.store, &session.user_id, Look::Now).await
    }

    async fn prove(
        &self,
        read: &ReadRequest<()>,
        form: Option<&Form>,
        parts: &Parts,
    ) -> Result<Proof<Arc<Living>>, Response<Body>> {
        let snapshot = self.0.authority.fresh().await.map_err(|e| broken(&e))?;
        let directory = &snapshot.directory;
        if let Some(sent) = elsewhere(self, directory, read, form, parts).await {
            return sent.map(Proof::Under);
        }
        let named = form.is_some_and(|form| form.mentions("username"));
        let ways = page::Ways::of(directory, parts, named);
        let typed = form.and_then(|form| form.optional("username")).unwrap_or_default();
        // A form without a name is none of ours: it fails below for want of its proof.
        let Some(form) = form.filter(|form| !named || own::is_ours(form)) else {
            let next = Problem { status: StatusCode::OK, text: "", username: typed, second: None };
            let next = Some(&next).filter(|_| named);
            return Ok(Proof::Under(page::show(self, &ways, read, parts, next)));
        };
        let client = Some(read.request.client_id.as_str());
        let started = match own::step(self, form, client, parts).await? {
            Step::Done(started) => started,
            Step::Again(again) => {
                let shown = page::show(self, &ways, read, parts, Some(&again.problem()));
                return Ok(Proof::Under(again.in_answer(shown)));
            }
        };
        let cookies = started.cookies(self);
        let Started { session, cookie, .. } = *started;
        let who = self.who(&session).await.map_err(|e| broken(&e))?.ok_or_else(changed)?;
        let cookie = cookie.expose().to_owned();
        Ok(Proof::Given(Box::new(Person { session, cookie, who }), cookies))
    }

    fn could_do_more(&self, read: &ReadRequest<()>, person: &Person<Arc<Living>>) -> bool {
        let snapshot = self.0.authority.snapshot();
        upstream::could_do_more(&snapshot.directory, read, &person.session.authentication)
    }

    /// People are asked if the client is public: any page and any program can send a browser here
    /// in its name, so a live session is not enough (RFC 8252 section 8.6).
    fn asks(&self, read: &ReadRequest<()>) -> Option<RedirectError> {
        let description =
            "prompt=none was requested, but the user has to agree to this application.";
        let unasked = RedirectError { error: "interaction_required", description };
        let public = read.client.record.authentication == ClientAuthentication::Public;
        public.then_some(unasked)
    }

    fn ask(
        &self,
        read: &ReadRequest<()>,
        person: &Person<Arc<Living>>,
        ticket: &Ticket,
    ) -> Response<Body> {
        page::go_on(self, read, &person.who.user.username, ticket)
    }

    /// Everybody who may sign in may sign in to all clients: what they may reach is decided at each
    /// exchange.
    async fn admit(
        &self,
        _: &ReadRequest<()>,
        _: &Person<Arc<Living>>,
    ) -> Result<(), Response<Body>> {
        Ok(())
    }
}

/// Redirects the browser to the upstream of the button that was pressed, of the address that was
/// typed, or of the application's hint; `None` if the person signs in here.
async fn elsewhere(
    idp: &Idp,
    directory: &IdpDirectory,
    read: &ReadRequest<()>,
    form: Option<&Form>,
    parts: &Parts,
) -> Option<Result<Response<Body>, Response<Body>>> {
    let typed = form.and_then(|form| form.optional("username")).map(str::trim);
    let hint = typed.or(read.request.login_hint.as_deref());
    let chosen = match (page::chosen(parts), form) {
        (Some(name), None) => directory.upstream(&name),
        // Whoever chose to sign in here stays.
        (Some(_), Some(_)) => None,
        (None, _) => hint.and_then(|hint| directory.upstream_for(hint)),
    };
    Some(upstream::send(idp, read, chosen?, hint, parts).await)
}
