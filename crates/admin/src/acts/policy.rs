//! The MCP servers known to an IdP, and who may reach them.

use super::{
    ActError, ManagedKind, Switched, check_addressable,
    context::ActContext,
    people::{dependent, groups_exist},
    put,
};
use crate::{
    servers::{Administration as _, IdpAdmin},
    types::{
        AuthorizationServers, ConnectionChange, ConnectionView, Connections, Dependents, Fate,
        Kind, NewConnection, NewResource, NewServer, ResourceChange, ResourceView, Resources,
        ServerChange, ServerView, SignInConditions, Users,
    },
};
use passavant_proto::{
    event::Act,
    formerly,
    identifier::{Issuer, Resource},
    oauth::client::{Client, ENROLLED_CLIENT},
    oidc::authentication::CLASSES,
    oidc::upstream::UpstreamProvider,
    policy::{Conditions, Connection, RegisteredResource, ResourceAuthorizationServer, Subject},
};
use std::collections::BTreeSet;

fn server_view(server: &ResourceAuthorizationServer) -> ServerView {
    ServerView {
        issuer: server.issuer.clone(),
        name: server.name.clone(),
        aliases: server.aliases.clone(),
        release: server.release.clone(),
        aud_tenant: server.aud_tenant.clone(),
        aud_sub: server.aud_sub.clone(),
        sub_id: server.sub_id,
        id_jag_signing_alg: server.id_jag_signing_alg,
        algorithm: server.algorithm,
        disabled: server.disabled,
    }
}

/// Rejects a tenant that no ID-JAG could carry.
fn check_tenant(tenant: Option<&str>) -> Result<(), ActError> {
    let fits = |tenant: &str| {
        (1..=255).contains(&tenant.len())
            && tenant.chars().all(passavant_proto::others_text::is_shown)
    };
    if tenant.is_none_or(fits) {
        return Ok(());
    }
    Err(ActError::conflict(
        "`aud_tenant`: not a text of 1 to 255 printable characters",
        "write it as the authorization server names the company's tenant",
    ))
}

/// Rejects what is no name of an attribute.
fn check_known_by(what: Option<&str>) -> Result<(), ActError> {
    let is_name = |name: &str| {
        (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    if what.is_none_or(is_name) {
        return Ok(());
    }
    Err(ActError::invalid(
        "`aud_sub` must be `email`, `username`, or the name of an attribute",
        "for instance employeeNumber",
    ))
}

/// An alias belongs to one party, and must not be another's issuer or alias.
async fn check_aliases(
    idp: &IdpAdmin,
    context: &ActContext,
    issuer: &str,
    aliases: &[String],
) -> Result<(), ActError> {
    if aliases.is_empty() {
        return Ok(());
    }
    let others = context.store.all::<ResourceAuthorizationServer>().await?;
    for alias in aliases {
        let theirs = others
            .iter()
            .filter(|other| other.issuer.as_str() != issuer)
            .any(|other| other.issuer.as_str() == alias || other.aliases.contains(alias));
        if theirs || idp.0.issuer.is_spelled(alias) {
            return Err(ActError::conflict(
                format!("`aliases`: `{alias}` is another party's issuer"),
                "choose an alias that no other party uses",
            ));
        }
    }
    Ok(())
}

impl ManagedKind<IdpAdmin> for AuthorizationServers {
    type Record = ResourceAuthorizationServer;

    async fn view(
        _: &IdpAdmin,
        _: &ActContext,
        server: &ResourceAuthorizationServer,
    ) -> Result<ServerView, ActError> {
        Ok(server_view(server))
    }

    async fn add(
        idp: &IdpAdmin,
        context: &ActContext,
        new: NewServer,
    ) -> Result<ServerView, ActError> {
        if idp.0.issuer.is_spelled(new.issuer.as_str()) {
            return Err(ActError::conflict(
                "`issuer` is this identity provider's own",
                "use the issuer of the MCP server's own authorization server",
            ));
        }
        let others = context.store.all::<ResourceAuthorizationServer>().await?;
        if others.iter().any(|other| other.aliases.iter().any(|alias| alias == new.issuer.as_str()))
        {
            return Err(ActError::conflict(
                format!("`issuer`: `{}` is an alias of another authorization server", new.issuer),
                "remove the alias from the other authorization server first",
            ));
        }
        check_aliases(idp, context, new.issuer.as_str(), &new.aliases).await?;
        context.check_signing_alg("id_jag_signing_alg", new.id_jag_signing_alg).await?;
        check_tenant(new.aud_tenant.as_deref())?;
        check_known_by(new.aud_sub.as_deref())?;
        let server = ResourceAuthorizationServer {
            issuer: new.issuer,
            name: new.name,
            aliases: new.aliases,
            release: new.release,
            aud_tenant: new.aud_tenant,
            aud_sub: new.aud_sub,
            sub_id: new.sub_id,
            id_jag_signing_alg: new.id_jag_signing_alg,
            algorithm: new.algorithm,
            disabled: false,
        };
        context.create(&server).await?;
        Ok(server_view(&server))
    }

    async fn change(
        idp: &IdpAdmin,
        context: &ActContext,
        id: &str,
        change: ServerChange,
    ) -> Result<ServerView, ActError> {
        check_aliases(idp, context, id, change.aliases.as_deref().unwrap_or_default()).await?;
        let chosen = change.id_jag_signing_alg;
        context.check_signing_alg("id_jag_signing_alg", chosen.flatten()).await?;
        check_tenant(change.aud_tenant.as_ref().and_then(Option::as_deref))?;
        check_known_by(change.aud_sub.as_ref().and_then(Option::as_deref))?;
        let set = |server: &mut ResourceAuthorizationServer| {
            put(&mut server.name, change.name);
            put(&mut server.aliases, change.aliases);
            put(&mut server.release, change.release);
            put(&mut server.aud_tenant, change.aud_tenant);
            put(&mut server.aud_sub, change.aud_sub);
            put(&mut server.sub_id, change.sub_id);
            put(&mut server.id_jag_signing_alg, chosen);
            put(&mut server.algorithm, change.algorithm);
        };
        Ok(server_view(&context.change((Self::NOUN, id), Act::Change, set).await?))
    }

    async fn dependents(
        _: &IdpAdmin,
        context: &ActContext,
        id: &str,
    ) -> Result<Dependents, ActError> {
        let resources = context.store.all::<RegisteredResource>().await?.into_iter();
        let governed = resources
            .filter(|resource| resource.authorization_server.as_str() == id)
            .map(|resource| dependent("resource", resource.resource.as_str(), Fate::Deleted));
        let connections = context.store.all::<Connection>().await?.into_iter();
        let reach = connections
            .filter(|connection| connection.audience.as_str() == id)
            .map(|connection| dependent("connection", connection.id, Fate::Deleted));
        Ok(Dependents { records: governed.chain(reach).collect() })
    }
}

impl Switched<IdpAdmin> for AuthorizationServers {
    fn set(server: &mut ResourceAuthorizationServer, disabled: bool) {
        server.disabled = disabled;
    }
}

fn resource_view(resource: &RegisteredResource) -> ResourceView {
    ResourceView {
        resource: resource.resource.clone(),
        authorization_server: resource.authorization_server.clone(),
        name: resource.name.clone(),
        scopes: resource.scopes.clone(),
        disabled: resource.disabled,
    }
}

/// The id of an MCP server: its resource identifier in its normal form.
pub(crate) fn normalized(named: &str) -> String {
    Resource::parse(named).map_or_else(|_| named.to_owned(), |it| it.normalized().to_owned())
}

impl ManagedKind<IdpAdmin> for Resources {
    type Record = RegisteredResource;

    async fn id_of(_: &IdpAdmin, _: &ActContext, named: &str) -> Result<String, ActError> {
        Ok(normalized(named))
    }

    async fn view(
        _: &IdpAdmin,
        _: &ActContext,
        resource: &RegisteredResource,
    ) -> Result<ResourceView, ActError> {
        Ok(resource_view(resource))
    }

    async fn add(
        _: &IdpAdmin,
        context: &ActContext,
        new: NewResource,
    ) -> Result<ResourceView, ActError> {
        let issuer = new.authorization_server.as_str();
        if context.store.by_id::<ResourceAuthorizationServer>(issuer).await?.is_none() {
            return Err(ActError::conflict(
                format!("`authorization_server`: `{issuer}` is not registered here"),
                "register the authorization server first; its issuer has to match byte for byte, mind \
                 a trailing slash",
            ));
        }
        let resource = RegisteredResource {
            resource: new.resource,
            authorization_server: new.authorization_server,
            name: new.name,
            scopes: new.scopes,
            disabled: false,
        };
        context.create(&resource).await?;
        Ok(resource_view(&resource))
    }

    async fn change(
        _: &IdpAdmin,
        context: &ActContext,
        id: &str,
        change: ResourceChange,
    ) -> Result<ResourceView, ActError> {
        let set = |resource: &mut RegisteredResource| {
            put(&mut resource.name, change.name);
            put(&mut resource.scopes, change.scopes);
        };
        Ok(resource_view(&context.change((Self::NOUN, id), Act::Change, set).await?))
    }

    /// Connections that contain this server lose it; those that contain no other are deleted.
    async fn dependents(
        _: &IdpAdmin,
        context: &ActContext,
        id: &str,
    ) -> Result<Dependents, ActError> {
        let connections = context.store.all::<Connection>().await?.into_iter();
        let opened = connections
            .filter(|connection| connection.resources.iter().any(|it| it.normalized() == id))
            .map(|connection| {
                let alone = connection.resources.iter().all(|it| it.normalized() == id);
                let then = if alone { Fate::Deleted } else { Fate::Changed };
                dependent("connection", connection.id, then)
            });
        Ok(Dependents { records: opened.collect() })
    }
}

impl Switched<IdpAdmin> for Resources {
    fn set(resource: &mut RegisteredResource, disabled: bool) {
        resource.disabled = disabled;
    }
}

/// Rejects conditions that no sign-in here can meet, because people would be asked to sign in again
/// and again.
async fn check_conditions(context: &ActContext, conditions: &Conditions) -> Result<(), ActError> {
    let upstreams = context.store.all::<UpstreamProvider>().await?;
    let mapped = upstreams.iter().flat_map(|upstream| upstream.acr_values.values());
    let own = CLASSES.iter().flat_map(|(class, short)| [*class, *short]);
    let known: BTreeSet<&str> = mapped.map(String::as_str).chain(own).collect();
    let unknown = conditions.acr_values.iter().find(|acr| !known.contains(acr.as_str()));
    if let Some(unknown) = unknown {
        let known: Vec<&str> = known.into_iter().collect();
        return Err(ActError::conflict(
            format!("`conditions.acr_values`: no sign-in here reaches the class `{unknown}`"),
            format!(
                "these are reached: {}; what a class of an upstream means here is set by \
                 `passavant admin upstream change --acr`",
                known.join(" ")
            ),
        ));
    }
    if conditions.max_authentication_age.is_some_and(|age| age < 0) {
        return Err(ActError::invalid(
            "`conditions.max_authentication_age` is below 0",
            "give a number of seconds, for instance 28800 for eight hours",
        ));
    }
    Ok(())
}

async fn check_resources(
    context: &ActContext,
    audience: &Issuer,
    resources: &[Resource],
) -> Result<(), ActError> {
    if resources.is_empty() {
        return Err(ActError::invalid(
            "`resources` is empty",
            "name at least one MCP server by its resource identifier",
        ));
    }
    for resource in resources {
        let found = context.store.by_id::<RegisteredResource>(resource.normalized()).await?;
        if found.is_none_or(|found| found.authorization_server != *audience) {
            return Err(ActError::conflict(
                format!("`resources`: `{resource}` is not registered as governed by `{audience}`"),
                "`audience` is the authorization server's issuer and `resources` are MCP servers; \
                 the two are easily swapped",
            ));
        }
    }
    Ok(())
}

async fn ids_of(
    idp: &IdpAdmin,
    context: &ActContext,
    users: &BTreeSet<String>,
) -> Result<Vec<Subject>, ActError> {
    let mut ids = Vec::with_capacity(users.len());
    for name in users {
        ids.push(Subject::User(Users::id_of(idp, context, name).await?));
    }
    Ok(ids)
}

impl ManagedKind<IdpAdmin> for Connections {
    type Record = Connection;

    async fn view(
        idp: &IdpAdmin,
        _: &ActContext,
        connection: &Connection,
    ) -> Result<ConnectionView, ActError> {
        let (mut everyone, mut groups, mut users) = (false, BTreeSet::new(), BTreeSet::new());
        for subject in &connection.subjects {
            match subject {
                Subject::Everyone => everyone = true,
                Subject::Group(name) => {
                    groups.insert(name.clone());
                }
                Subject::User(id) => {
                    users.insert(idp.name_of(id).await.unwrap_or_else(|| id.clone()));
                }
            }
        }
        Ok(ConnectionView {
            id: connection.id.clone(),
            idp_client_id: connection.idp_client_id.clone(),
            audience: connection.audience.clone(),
            ras_client_id: connection.ras_client_id.clone(),
            resources: connection.resources.clone(),
            scopes: connection.scopes.clone(),
            everyone,
            groups,
            users,
            conditions: SignInConditions::from(&connection.conditions),
            disabled: connection.disabled,
        })
    }

    async fn add(
        idp: &IdpAdmin,
        context: &ActContext,
        new: NewConnection,
    ) -> Result<ConnectionView, ActError> {
        let client = formerly::current(&new.idp_client_id).to_owned();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if new.id.is_empty() || new.id.len() > 128 || !new.id.bytes().all(plain) {
            return Err(ActError::invalid(
                format!("`id`: `{}` cannot name a connection", new.id),
                "use letters, digits and - _ .",
            ));
        }
        check_addressable("id", &new.id)?;
        let enrolled = client == ENROLLED_CLIENT;
        if !enrolled && context.store.by_id::<Client>(&client).await?.is_none() {
            return Err(ActError::conflict(
                format!("`idp_client_id`: there is no client `{client}` here"),
                "this is the client's id at this identity provider, not the one at the resource's \
                 authorization server",
            ));
        }
        if !enrolled && new.ras_client_id.is_none() {
            return Err(ActError::invalid(
                "`ras_client_id` is missing",
                format!(
                    "give the client's id at {}; only `{ENROLLED_CLIENT}` needs none, because its \
                     installations have ids of their own",
                    new.audience
                ),
            ));
        }
        let conditions = Conditions::from(new.conditions);
        check_conditions(context, &conditions).await?;
        check_resources(context, &new.audience, &new.resources).await?;
        groups_exist(context, &new.groups).await?;
        let mut subjects: Vec<Subject> = new.groups.into_iter().map(Subject::Group).collect();
        subjects.extend(ids_of(idp, context, &new.users).await?);
        if new.everyone {
            subjects.push(Subject::Everyone);
        }
        let connection = Connection {
            id: new.id,
            idp_client_id: client,
            audience: new.audience,
            ras_client_id: new.ras_client_id,
            resources: new.resources,
            scopes: new.scopes,
            subjects,
            conditions,
            disabled: false,
        };
        context.create(&connection).await?;
        Self::view(idp, context, &connection).await
    }

    async fn change(
        idp: &IdpAdmin,
        context: &ActContext,
        id: &str,
        change: ConnectionChange,
    ) -> Result<ConnectionView, ActError> {
        let held = context.find::<Connection>(Self::NOUN, id).await?;
        if let Some(resources) = &change.resources {
            check_resources(context, &held.audience, resources).await?;
        }
        let conditions = change.conditions.map(Conditions::from);
        if let Some(conditions) = &conditions {
            check_conditions(context, conditions).await?;
        }
        groups_exist(context, change.groups.as_ref().unwrap_or(&BTreeSet::new())).await?;
        let users = match &change.users {
            Some(users) => Some(ids_of(idp, context, users).await?),
            None => None,
        };
        let set = |connection: &mut Connection| {
            if let Some(said) = change.ras_client_id {
                connection.ras_client_id = Some(said);
            }
            put(&mut connection.resources, change.resources);
            put(&mut connection.scopes, change.scopes);
            put(&mut connection.conditions, conditions);
            let subjects = &mut connection.subjects;
            if let Some(everyone) = change.everyone {
                subjects.retain(|subject| *subject != Subject::Everyone);
                subjects.extend(everyone.then_some(Subject::Everyone));
            }
            if let Some(groups) = change.groups {
                subjects.retain(|subject| !matches!(subject, Subject::Group(_)));
                subjects.extend(groups.into_iter().map(Subject::Group));
            }
            if let Some(users) = users {
                subjects.retain(|subject| !matches!(subject, Subject::User(_)));
                subjects.extend(users);
            }
        };
        let changed = context.change::<Connection>((Self::NOUN, id), Act::Change, set).await?;
        Self::view(idp, context, &changed).await
    }
}

impl Switched<IdpAdmin> for Connections {
    fn set(connection: &mut Connection, disabled: bool) {
        connection.disabled = disabled;
    }
}
