//! Trusted issuers, governed MCP servers and accounts of a RAS.

use super::{
    ActError, ManagedKind, Switched,
    context::ActContext,
    people::{check_email, dependent},
    policy::normalized,
    put,
};
use crate::{
    servers::RasAdmin,
    types::{
        AccountChange, AccountRules, AccountView, Accounts, ClientHostView, ClientHosts,
        Dependents, Fate, GovernedChange, GovernedResources, GovernedView, Kind, LinkView, Listed,
        NewAccount, NewClientHost, NewGoverned, NewTrust, Nothing, SignInThere, TrustChange,
        TrustView, TrustedIssuers,
    },
};
use passavant_proto::{
    event::{Act, Detail},
    identifier::Resource,
    oauth::client::GovernedResource,
    oauth::client_document::is_origin,
    oauth::scope::Scopes,
    xaa::trust::{
        Account, AccountResolution, ClientHost, InteractiveSignIn, SubjectLink, TrustedIssuer,
    },
};

/// Longest lifetime of an access token, in seconds.
const LONGEST_ACCESS_TOKEN: i64 = 3600;

fn trust_view(trusted: &TrustedIssuer) -> TrustView {
    TrustView {
        issuer: trusted.issuer.clone(),
        jwks_uri: trusted.jwks_uri.clone(),
        algorithm: trusted.algorithm,
        tenant: trusted.tenant.clone(),
        audience_tenant: trusted.audience_tenant.clone(),
        accounts: AccountRules::from(&trusted.accounts),
        allow_reuse: trusted.allow_reuse,
        client_documents: trusted.client_documents,
        sign_in: trusted.sign_in.as_ref().map(SignInThere::from),
        disabled: trusted.disabled,
    }
}

fn check_sign_in(
    sign_in: Option<&InteractiveSignIn>,
    tenant: Option<&str>,
) -> Result<(), ActError> {
    if sign_in.is_some() && tenant.is_some() {
        return Err(ActError::conflict(
            "`sign_in` and `tenant` exclude each other: at sign-in, the tenants of a multi-tenant \
             issuer cannot be told apart",
            "leave `sign_in` out: people of a tenant come through cross-app access",
        ));
    }
    check_domain_names("domains", sign_in.iter().flat_map(|s| &s.domains))
}

/// Rejects what is not a domain name.
pub(super) fn check_domain_names<'d>(
    member: &str,
    domains: impl IntoIterator<Item = &'d String>,
) -> Result<(), ActError> {
    let is_domain = |domain: &str| {
        let label = |label: &str| {
            let legal = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            !label.is_empty() && label.len() <= 63 && legal
        };
        domain.len() <= 253 && domain.split('.').all(label)
    };
    match domains.into_iter().find(|domain| !is_domain(domain)) {
        Some(domain) => Err(ActError::invalid(
            format!("`{member}`: `{domain}` is not a domain"),
            "for instance acme.example",
        )),
        None => Ok(()),
    }
}

/// Rejects a domain that another issuer has already: it would be unclear whose people they are.
async fn check_domains(
    context: &ActContext,
    issuer: &str,
    sign_in: Option<&InteractiveSignIn>,
) -> Result<(), ActError> {
    let domains = sign_in.iter().flat_map(|sign_in| &sign_in.domains);
    if domains.count() == 0 {
        return Ok(());
    }
    let others = context.all_readable::<TrustedIssuer>().await?;
    for other in others.iter().filter(|other| other.issuer.as_str() != issuer) {
        let theirs = other.sign_in.iter().flat_map(|sign_in| &sign_in.domains);
        for domain in theirs {
            let mine = sign_in.iter().flat_map(|sign_in| &sign_in.domains);
            if mine.into_iter().any(|own| own.eq_ignore_ascii_case(domain)) {
                return Err(ActError::conflict(
                    format!(
                        "`domains`: people of `{domain}` sign in at `{}` already",
                        other.issuer
                    ),
                    "a domain belongs to one issuer: remove it from the other one first",
                ));
            }
        }
    }
    Ok(())
}

fn check_keys(uri: Option<&String>) -> Result<(), ActError> {
    let Some(uri) = uri else { return Ok(()) };
    Resource::parse(uri).map(|_| ()).map_err(|error| {
        ActError::invalid(format!("`jwks_uri`: `{uri}` {error}"), "use an https URL")
    })
}

impl ManagedKind<RasAdmin> for TrustedIssuers {
    type Record = TrustedIssuer;

    async fn view(
        _: &RasAdmin,
        _: &ActContext,
        held: &TrustedIssuer,
    ) -> Result<TrustView, ActError> {
        Ok(trust_view(held))
    }

    async fn add(
        ras: &RasAdmin,
        context: &ActContext,
        new: NewTrust,
    ) -> Result<TrustView, ActError> {
        if ras.0.issuer.is_spelled(new.issuer.as_str()) {
            return Err(ActError::conflict(
                "`issuer` is this authorization server's own",
                "name the company's identity provider",
            ));
        }
        let sign_in = new.sign_in.map(InteractiveSignIn::from);
        check_sign_in(sign_in.as_ref(), new.tenant.as_deref())?;
        check_domains(context, new.issuer.as_str(), sign_in.as_ref()).await?;
        check_keys(new.jwks_uri.as_ref())?;
        let trusted = TrustedIssuer {
            issuer: new.issuer,
            jwks_uri: new.jwks_uri,
            algorithm: new.algorithm,
            tenant: new.tenant,
            audience_tenant: new.audience_tenant,
            accounts: AccountResolution::from(new.accounts),
            allow_reuse: new.allow_reuse,
            client_documents: new.client_documents,
            sign_in,
            disabled: false,
        };
        context.create(&trusted).await?;
        Ok(trust_view(&trusted))
    }

    async fn change(
        _: &RasAdmin,
        context: &ActContext,
        id: &str,
        change: TrustChange,
    ) -> Result<TrustView, ActError> {
        let held = context.find::<TrustedIssuer>(Self::NOUN, id).await?;
        let sign_in = change.sign_in.map(|said| said.map(InteractiveSignIn::from));
        if let Some(sign_in) = &sign_in {
            check_sign_in(sign_in.as_ref(), held.tenant.as_deref())?;
            check_domains(context, id, sign_in.as_ref()).await?;
        }
        check_keys(change.jwks_uri.as_ref().and_then(Option::as_ref))?;
        let act = match &sign_in {
            Some(Some(_)) => Act::AllowSignIn,
            Some(None) => Act::ForbidSignIn,
            None => Act::Change,
        };
        let set = |trusted: &mut TrustedIssuer| {
            put(&mut trusted.jwks_uri, change.jwks_uri);
            put(&mut trusted.algorithm, change.algorithm);
            put(&mut trusted.audience_tenant, change.audience_tenant);
            put(&mut trusted.accounts, change.accounts.map(AccountResolution::from));
            put(&mut trusted.allow_reuse, change.allow_reuse);
            put(&mut trusted.client_documents, change.client_documents);
            put(&mut trusted.sign_in, sign_in);
        };
        Ok(trust_view(&context.change((Self::NOUN, id), act, set).await?))
    }

    async fn dependents(
        _: &RasAdmin,
        context: &ActContext,
        id: &str,
    ) -> Result<Dependents, ActError> {
        let links = context.store.links_of_issuer(id).await?.into_iter();
        let records = links.map(|link| dependent("link", link.subject, Fate::Deleted)).collect();
        Ok(Dependents { records })
    }
}

impl Switched<RasAdmin> for TrustedIssuers {
    fn set(trusted: &mut TrustedIssuer, disabled: bool) {
        trusted.disabled = disabled;
    }
}

impl ManagedKind<RasAdmin> for ClientHosts {
    type Record = ClientHost;

    async fn view(
        _: &RasAdmin,
        _: &ActContext,
        host: &ClientHost,
    ) -> Result<ClientHostView, ActError> {
        Ok(ClientHostView { origin: host.origin.clone(), disabled: host.disabled })
    }

    async fn add(
        ras: &RasAdmin,
        context: &ActContext,
        new: NewClientHost,
    ) -> Result<ClientHostView, ActError> {
        if !is_origin(&new.origin) {
            return Err(ActError::invalid(
                format!("`origin`: `{}` is not an origin", new.origin),
                "write https:// and the host, with the port if it is not 443, and no slash at the end",
            ));
        }
        let host = ClientHost { origin: new.origin, disabled: false };
        context.create(&host).await?;
        Self::view(ras, context, &host).await
    }

    async fn change(
        ras: &RasAdmin,
        context: &ActContext,
        id: &str,
        _: Nothing,
    ) -> Result<ClientHostView, ActError> {
        Self::view(ras, context, &context.find(Self::NOUN, id).await?).await
    }
}

impl Switched<RasAdmin> for ClientHosts {
    fn set(host: &mut ClientHost, disabled: bool) {
        host.disabled = disabled;
    }
}

fn governed_view(held: &GovernedResource) -> GovernedView {
    GovernedView {
        resource: held.resource.clone(),
        name: held.name.clone(),
        scopes: held.scopes.clone(),
        default_scopes: held.default_scopes.clone(),
        descriptions: held.descriptions.clone(),
        access_token_lifetime: held.access_token_lifetime,
        access_token_signing_alg: held.access_token_signing_alg,
        require_dpop: held.require_dpop,
        disabled: held.disabled,
    }
}

fn check_scopes(scopes: &Scopes, default_scopes: &Scopes) -> Result<(), ActError> {
    if scopes.contains_all(default_scopes) {
        return Ok(());
    }
    Err(ActError::conflict(
        "`default_scopes` names scopes that are not in `scopes`",
        "choose the default scopes from `scopes`",
    ))
}

fn check_lifetime(seconds: Option<i64>) -> Result<(), ActError> {
    match seconds {
        Some(seconds) if !(1..=LONGEST_ACCESS_TOKEN).contains(&seconds) => Err(ActError::invalid(
            format!(
                "`access_token_lifetime`: {seconds} is not from 1 to {LONGEST_ACCESS_TOKEN} seconds"
            ),
            "leave it out to use the default of five minutes",
        )),
        _ => Ok(()),
    }
}

impl ManagedKind<RasAdmin> for GovernedResources {
    type Record = GovernedResource;

    async fn id_of(_: &RasAdmin, _: &ActContext, named: &str) -> Result<String, ActError> {
        Ok(normalized(named))
    }

    async fn view(
        _: &RasAdmin,
        _: &ActContext,
        held: &GovernedResource,
    ) -> Result<GovernedView, ActError> {
        Ok(governed_view(held))
    }

    async fn add(
        _: &RasAdmin,
        context: &ActContext,
        new: NewGoverned,
    ) -> Result<GovernedView, ActError> {
        check_scopes(&new.scopes, &new.default_scopes)?;
        check_lifetime(new.access_token_lifetime)?;
        context.check_signing_alg("access_token_signing_alg", new.access_token_signing_alg).await?;
        let governed = GovernedResource {
            resource: new.resource,
            name: new.name,
            scopes: new.scopes,
            default_scopes: new.default_scopes,
            descriptions: new.descriptions,
            access_token_lifetime: new.access_token_lifetime,
            access_token_signing_alg: new.access_token_signing_alg,
            require_dpop: new.require_dpop,
            disabled: false,
        };
        context.create(&governed).await?;
        Ok(governed_view(&governed))
    }

    async fn change(
        _: &RasAdmin,
        context: &ActContext,
        id: &str,
        change: GovernedChange,
    ) -> Result<GovernedView, ActError> {
        let held = context.find::<GovernedResource>(Self::NOUN, id).await?;
        let scopes = change.scopes.as_ref().unwrap_or(&held.scopes);
        check_scopes(scopes, change.default_scopes.as_ref().unwrap_or(&held.default_scopes))?;
        check_lifetime(change.access_token_lifetime.flatten())?;
        let chosen = change.access_token_signing_alg;
        context.check_signing_alg("access_token_signing_alg", chosen.flatten()).await?;
        let set = |governed: &mut GovernedResource| {
            put(&mut governed.name, change.name);
            put(&mut governed.scopes, change.scopes);
            put(&mut governed.default_scopes, change.default_scopes);
            put(&mut governed.descriptions, change.descriptions);
            put(&mut governed.access_token_lifetime, change.access_token_lifetime);
            put(&mut governed.access_token_signing_alg, chosen);
            put(&mut governed.require_dpop, change.require_dpop);
        };
        Ok(governed_view(&context.change((Self::NOUN, id), Act::Change, set).await?))
    }
}

impl Switched<RasAdmin> for GovernedResources {
    fn set(governed: &mut GovernedResource, disabled: bool) {
        governed.disabled = disabled;
    }
}

fn account_view(account: &Account) -> AccountView {
    AccountView { id: account.id.clone(), email: account.email.clone(), disabled: account.disabled }
}

impl ManagedKind<RasAdmin> for Accounts {
    type Record = Account;

    /// The id for an id or email address, in any spelling.
    async fn id_of(_: &RasAdmin, context: &ActContext, named: &str) -> Result<String, ActError> {
        let found = context.store.id_of::<Account>(named, &named.to_lowercase()).await?;
        found.ok_or_else(|| ActError::missing(Self::NOUN, named))
    }

    async fn view(
        _: &RasAdmin,
        _: &ActContext,
        account: &Account,
    ) -> Result<AccountView, ActError> {
        Ok(account_view(account))
    }

    async fn add(
        _: &RasAdmin,
        context: &ActContext,
        new: NewAccount,
    ) -> Result<AccountView, ActError> {
        check_email(&new.email)?;
        let account = Account { id: context.entropy.id(), email: Some(new.email), disabled: false };
        context.create(&account).await?;
        Ok(account_view(&account))
    }

    async fn change(
        _: &RasAdmin,
        context: &ActContext,
        id: &str,
        change: AccountChange,
    ) -> Result<AccountView, ActError> {
        change.email.as_ref().and_then(Option::as_deref).map_or(Ok(()), check_email)?;
        let set = |account: &mut Account| put(&mut account.email, change.email);
        Ok(account_view(&context.change((Self::NOUN, id), Act::Change, set).await?))
    }

    async fn dependents(
        _: &RasAdmin,
        context: &ActContext,
        id: &str,
    ) -> Result<Dependents, ActError> {
        let links = context.store.links(id).await?.into_iter();
        let links = links.map(|link| dependent("link", link.subject, Fate::Deleted));
        let sessions = context.store.sessions(Some(id), context.now()).await?.into_iter();
        let sessions = sessions.map(|session| dependent("session", session.sid, Fate::Ended));
        Ok(Dependents { records: links.chain(sessions).collect() })
    }
}

impl Switched<RasAdmin> for Accounts {
    fn set(account: &mut Account, disabled: bool) {
        account.disabled = disabled;
    }

    async fn switch(
        _: &RasAdmin,
        context: &ActContext,
        id: &str,
        disabled: bool,
    ) -> Result<AccountView, ActError> {
        if disabled {
            let event = context.event::<Account>(Act::Disable, id);
            let off = |account: &mut Account| account.disabled = true;
            let changed = context.store.cut_off_account(id, off, event).await?;
            let changed = changed.ok_or_else(|| ActError::missing(Self::NOUN, id))?;
            return Ok(account_view(&changed));
        }
        let on = |account: &mut Account| account.disabled = false;
        Ok(account_view(&context.change((Self::NOUN, id), Act::Enable, on).await?))
    }
}

/// The people of trusted issuers to whom an account is linked.
pub(crate) async fn links(
    ras: &RasAdmin,
    context: &ActContext,
    named: &str,
) -> Result<Listed<LinkView>, ActError> {
    let id = Accounts::id_of(ras, context, named).await?;
    let links = context.store.links(&id).await?.into_iter();
    let items =
        links.map(|SubjectLink { issuer, tenant, subject }| LinkView { issuer, tenant, subject });
    Ok(Listed { items: items.collect(), unreadable: Vec::new(), next: None })
}

/// Removes a link between a person and an account that was made by mistake.
pub(crate) async fn unlink(context: &ActContext, link: LinkView) -> Result<(), ActError> {
    let LinkView { issuer, tenant, subject } = link;
    let link = SubjectLink { issuer, tenant, subject };
    let event = context
        .act(Act::Unlink, "account")
        .with(Detail::Issuer, link.issuer.as_str())
        .with(Detail::Subject, link.subject.as_str());
    if context.store.unlink(&link, event).await? {
        return Ok(());
    }
    Err(ActError::conflict(
        format!(
            "no account is linked to the subject `{}` of the issuer {}",
            link.subject, link.issuer
        ),
        "`passavant admin --ras NAME account links ACCOUNT` lists the links",
    ))
}
