//! The RAS's part of the front channel, for people and clients without cross-app access: people
//! sign in at the trusted issuer of their company, and are asked for consent each time.

use super::{consent_page, directory::RasDirectory, standing::AccountHolder, state::Ras};
use axum::{
    body::Body,
    http::{Response, StatusCode, request::Parts},
};
use passavant_authority::{
    admission::Admission,
    answer::{broken, error_page},
    authority::{Authority, RegisteredClient, Snapshot},
    front_channel::{FrontChannel, Person, Proof, ReadRequest, Reading, Ticket, Unread, upstream},
};
use passavant_outbound::{Registration, SignInWishes};
use passavant_proto::{
    event::RequestEvent,
    oauth::authorize::{self, Offer, PageError, RedirectError},
    oauth::client::GovernedResource,
    oauth::form::Form,
    secret::sha256,
    xaa::trust::TrustedIssuer,
};
use passavant_store::{AuditEvent, Session, StoreError};

/// Maximum number of self-registered clients that one person may have consented to.
const LET_IN: usize = 50;

impl FrontChannel for Ras {
    type Directory = RasDirectory;
    type About = GovernedResource;
    type Who = AccountHolder;

    fn authority(&self) -> &Authority<RasDirectory> {
        &self.0.authority
    }

    fn admission(&self) -> &Admission {
        &self.0.admission
    }

    fn cookie_name(&self, name: &str) -> String {
        let own = sha256(self.issuer().as_str().as_bytes());
        format!("{}-{name}", &own[..8])
    }

    /// Without an issuer where people may sign in, nobody can sign in here.
    fn closed(&self, directory: &RasDirectory) -> Option<&'static str> {
        directory.interactive().next().is_none().then_some(
            "There is no sign-in here: access to these MCP servers comes from your company's identity provider, \
             through a client with cross-app access, or through the bridge that `passavant install` sets up in \
             yours. Ask IT if you do not have it.",
        )
    }

    async fn read(
        &self,
        snapshot: &Snapshot<RasDirectory>,
        form: &Form,
        client: &RegisteredClient,
    ) -> Result<Reading<GovernedResource>, Unread> {
        let governed = &snapshot.directory.governed;
        let request = authorize::read(form, &client.record, Offer::Resources(governed))?;
        let about = governed.iter().find(|held| request.resource.as_ref() == Some(&held.resource));
        let about = about.ok_or(PageError::Unreadable)?.clone();
        Ok(Reading { request, pushed: None, about })
    }

    fn known(&self, directory: &RasDirectory) -> String {
        let live = directory.governed.iter().filter(|governed| !governed.disabled);
        let known: Vec<&str> = live.map(|governed| governed.resource.as_str()).take(20).collect();
        format!("Known resources: {}", known.join(" "))
    }

    /// The person of a session, if their account and issuer are still enabled.
    async fn who(&self, session: &Session) -> Result<Option<AccountHolder>, StoreError> {
        let Some(issuer) = session.authentication.issuer.clone() else { return Ok(None) };
        let snapshot = self.0.authority.fresh().await?;
        if snapshot.directory.open_for(&session.authentication).is_none() {
            return Ok(None);
        }
        let account = self.live_account(&session.user_id).await?;
        Ok(account.map(|(account, _)| AccountHolder { issuer, account }))
    }

    /// Redirects the browser to the person's issuer, or asks for an email address first.
    async fn prove(
        &self,
        read: &ReadRequest<GovernedResource>,
        form: Option<&Form>,
        parts: &Parts,
    ) -> Result<Proof<AccountHolder>, Response<Body>> {
        let typed = form.and_then(|form| form.optional("email")).map(str::trim);
        let email = typed.or(read.request.login_hint.as_deref());
        let snapshot = self.0.authority.fresh().await.map_err(|e| broken(&e))?;
        let Some(trusted) = company_of(&snapshot.directory, email) else {
            return Ok(Proof::Under(consent_page::which_company(read, email)));
        };
        let registration = registration_of(self, trusted).ok_or_else(|| {
            let text = "Sign-in for your company is switched off here. Ask IT.";
            error_page(StatusCode::BAD_REQUEST, text)
        })?;
        let scope = |_: &[String]| "openid email".to_owned();
        let (fresh, max_age) = (read.request.fresh, read.request.max_age);
        let sending =
            upstream::Sending { target: &read.target, fresh, untold_is_fresh: false, max_age };
        let prompt: &[&str] = if fresh { &["login"] } else { &[] };
        let wishes = SignInWishes { login_hint: email, prompt, max_age, ..SignInWishes::default() };
        let there = (&registration, None);
        let sent = upstream::send(self, sending, there, scope, wishes, parts).await?;
        Ok(Proof::Under(sent))
    }

    fn asks(&self, _: &ReadRequest<GovernedResource>) -> Option<RedirectError> {
        let description = "prompt=none was requested, but user consent is required.";
        Some(RedirectError { error: "consent_required", description })
    }

    fn ask(
        &self,
        read: &ReadRequest<GovernedResource>,
        person: &Person<AccountHolder>,
        ticket: &Ticket,
    ) -> Response<Body> {
        consent_page::consent(read, &person.who, ticket)
    }

    async fn admit(
        &self,
        read: &ReadRequest<GovernedResource>,
        person: &Person<AccountHolder>,
    ) -> Result<(), Response<Body>> {
        let client = &read.client.record;
        if client.registered.is_none_or(|registered| registered.used) {
            return Ok(());
        }
        // From now on the client is kept, and counted for the person who consented. A client that
        // nobody consents to is forgotten.
        let authority = &self.0.authority;
        let account = &person.session.user_id;
        let event = AuditEvent::granted(RequestEvent::RegistrationUsed, authority.now())
            .client(&client.id)
            .person(account);
        let done = authority.store.let_in(&client.id, account, LET_IN, event).await;
        if done.map_err(|e| broken(&e))? {
            return Ok(());
        }
        let text = format!(
            "You have allowed {LET_IN} programs that registered themselves, the most that one \
             person may. Those that you no longer use are removed a day after their access ended; \
             ask the operator of this MCP server to remove one sooner."
        );
        Err(error_page(StatusCode::FORBIDDEN, &text))
    }
}

/// The issuer for this email address: by its domain, or the only one there is.
fn company_of<'a>(directory: &'a RasDirectory, email: Option<&str>) -> Option<&'a TrustedIssuer> {
    let mut open = directory.interactive();
    let by_domain = email.and_then(|email| {
        let takes = |trusted: &&TrustedIssuer| {
            trusted.open_sign_in().is_some_and(|sign_in| sign_in.takes(email))
        };
        let mut taking = directory.interactive().filter(takes);
        // A domain of two issuers selects neither.
        taking.next().filter(|_| taking.next().is_none())
    });
    let only = match (open.next(), open.next()) {
        (Some(_), None) if directory.lacks_issuers => None,
        (Some(only), None) if only.open_sign_in().is_some_and(|s| s.domains.is_empty()) => {
            Some(only)
        }
        _ => None,
    };
    by_domain.or(only)
}

/// The path below the issuer that browsers return to.
const CALLBACK: &str = "/callback";

/// Our registration at a trusted issuer; `None` if people may not sign in there.
pub(super) fn registration_of<'a>(
    ras: &Ras,
    trusted: &'a TrustedIssuer,
) -> Option<Registration<'a>> {
    Some(Registration {
        issuer: &trusted.issuer,
        tenants: None,
        other_spelling: None,
        client_id: trusted.open_sign_in()?.client_id.as_str(),
        redirect_uri: ras.issuer().endpoint(CALLBACK),
        algorithm: trusted.algorithm,
        announced_pkce: true,
    })
}
