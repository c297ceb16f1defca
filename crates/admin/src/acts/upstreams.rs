//! The identity providers at which the company's people sign in, and whom they are linked to.

use super::{
    ActError, ManagedKind, Switched, context::ActContext, people::dependent,
    provisioning::provisioning_url, put, trust::check_domain_names,
};
use crate::{
    servers::IdpAdmin,
    types::{
        Dependents, Fate, Kind, Listed, NewPersonLink, NewSaml, NewUpstream, Nothing,
        PersonLinkQuery, PersonLinkView, PresetName, ProofMethod, SamlView, UpstreamChange,
        UpstreamLeg, UpstreamProof, UpstreamView, Upstreams, Users,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use passavant_proto::{
    event::{Act, Detail},
    identifier::{Issuer, SubjectIssuer},
    jose::jwk::Algorithm,
    oauth::global_token_revocation::PATH as REVOCATION,
    oidc::upstream::{
        OpenIdProvider, OpenIdUpstream, Preset, UpstreamAuthentication, UpstreamProtocol,
        UpstreamProvider, is_for_all_tenants, issuer_of_tenant,
    },
    others_text::is_shown,
    saml::{FORMAT_TRANSIENT, FORMATS, SamlProvider},
    secret::equal_in_constant_time,
    xaa::trust::SubjectLink,
};
use passavant_saml::{IdentityProviderMetadata, usual_subject_attribute};
use passavant_store::{Group, SealedAt, User};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn preset_of(name: PresetName) -> Preset {
    match name {
        PresetName::Generic => Preset::Generic,
        PresetName::Entra => Preset::Entra,
        PresetName::Google => Preset::Google,
        PresetName::Okta => Preset::Okta,
        PresetName::Keycloak => Preset::Keycloak,
    }
}

fn view(idp: &IdpAdmin, held: &UpstreamProvider) -> UpstreamView {
    let mut next_certificate = None;
    let (proof, proof_algorithm, certificate) = match &held.authentication {
        UpstreamAuthentication::PrivateKeyJwt(algorithm) => {
            (ProofMethod::PrivateKeyJwt, *algorithm, None)
        }
        UpstreamAuthentication::Certificate { certificate, next, .. } => {
            next_certificate = next.as_ref().map(|(next, _)| pem(next));
            (ProofMethod::Certificate, None, Some(pem(certificate)))
        }
        UpstreamAuthentication::SecretPost(_) => (ProofMethod::ClientSecretPost, None, None),
        UpstreamAuthentication::SecretBasic(_) => (ProofMethod::ClientSecretBasic, None, None),
    };
    let preset = match held.preset {
        Preset::Generic => PresetName::Generic,
        Preset::Entra => PresetName::Entra,
        Preset::Google => PresetName::Google,
        Preset::Okta => PresetName::Okta,
        Preset::Keycloak => PresetName::Keycloak,
    };
    let open_id = held.open_id().map(|upstream| upstream.open_id);
    let none = BTreeSet::new();
    let saml = held.saml().map(|provider| SamlView {
        service_provider: idp.issuer().endpoint(&format!("/saml/{}", held.name)),
        redirect: provider.redirect.clone(),
        post: provider.post.clone(),
        certificates: provider.certificates.iter().map(|der| pem(der)).collect(),
        sign_requests: provider.sign_requests,
        name_id_format: provider.name_id_format.clone(),
        subject_attribute: provider.subject_attribute.clone(),
    });
    let logout = || idp.issuer().endpoint(&format!("/backchannel_logout/{}", held.name));
    UpstreamView {
        name: held.name.clone(),
        display_name: held.display_name.clone(),
        preset,
        issuer: held.issuer().to_string(),
        saml,
        redirect_uri: idp.issuer().endpoint(&format!("/callback/{}", held.name)),
        backchannel_logout_uri: open_id.map(|_| logout()),
        global_token_revocation_endpoint: open_id
            .map(|_| idp.issuer().endpoint(&format!("{REVOCATION}/{}", held.name))),
        client_id: open_id.map(|held| held.client_id.clone()),
        proof,
        proof_algorithm,
        certificate,
        next_certificate,
        tenants: open_id.map_or(&none, |held| &held.tenants).clone(),
        hosted_domains: open_id.map_or(&none, |held| &held.hosted_domains).clone(),
        id_token_signing_alg: open_id.map(|held| held.algorithm),
        domains: held.domains.clone(),
        scopes: open_id.map_or(&none, |held| &held.scopes).clone(),
        username_claim: held.username_claim.clone(),
        groups_claim: held.groups_claim.clone(),
        asks_consent: open_id.is_some_and(|held| held.asks_consent),
        groups: held.groups.clone(),
        acr_values: held.acr_values.clone(),
        just_in_time: held.just_in_time,
        external_id_is_subject: held.links_external_id(),
        provisioning_url: provisioning_url(idp, &held.name),
        disabled: held.disabled,
    }
}

/// A certificate in PEM (RFC 7468).
fn pem(der: &str) -> String {
    let lines: Vec<&str> =
        (0..der.len()).step_by(64).map(|at| &der[at..der.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn check_name(name: &str) -> Result<(), ActError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let legal = (1..=40).contains(&name.len())
        && name.bytes().all(|b| inner(b) || b == b'-')
        && name.bytes().next().is_some_and(inner)
        && name.bytes().last().is_some_and(inner);
    if legal {
        return Ok(());
    }
    Err(ActError::invalid(
        format!("`name`: `{name}` is not a name of 1 to 40 lower-case letters, digits and hyphens"),
        "for instance `entra`: it becomes part of the redirect URI",
    ))
}

/// Texts that another party's values are compared with.
fn check_text(member: &str, text: &str) -> Result<(), ActError> {
    if (1..=255).contains(&text.len()) && text.chars().all(is_shown) {
        return Ok(());
    }
    Err(ActError::conflict(
        format!("`{member}`: not a text of 1 to 255 printable characters"),
        "write it as the identity provider does",
    ))
}

/// The rules of the product: what would let in the wrong people is refused.
fn check_product(
    preset: Preset,
    issuer: &Issuer,
    tenants: &BTreeSet<String>,
    hosted_domains: &BTreeSet<String>,
    groups: &BTreeMap<String, String>,
) -> Result<(), ActError> {
    let all = is_for_all_tenants(issuer);
    if preset != Preset::Entra && !tenants.is_empty() {
        return Err(ActError::conflict("`tenants` belong to Entra alone", "leave them out"));
    }
    if preset != Preset::Google && !hosted_domains.is_empty() {
        return Err(ActError::conflict(
            "`hosted_domains` belong to Google alone",
            "leave them out",
        ));
    }
    if preset == Preset::Entra && all && tenants.is_empty() {
        return Err(ActError::conflict(
            "`issuer` stands for the people of every tenant, and no `tenants` are listed",
            "use the issuer of your tenant, https://login.microsoftonline.com/TENANT/v2.0, or list \
             the tenants",
        ));
    }
    if preset == Preset::Entra && !all && !tenants.is_empty() {
        return Err(ActError::conflict(
            "`tenants` are listed, and `issuer` is that of one tenant",
            "leave `tenants` out, or use the issuer https://login.microsoftonline.com/organizations/v2.0",
        ));
    }
    if let Some(tenant) = tenants.iter().find(|tenant| issuer_of_tenant(issuer, tenant).is_none()) {
        return Err(ActError::conflict(
            format!(
                "`tenants`: `{tenant}` is not a tenant id in lower case, or `issuer` has no place for it"
            ),
            "a tenant id is a GUID, as the overview page of the tenant shows it",
        ));
    }
    if preset == Preset::Google && hosted_domains.is_empty() {
        return Err(ActError::conflict(
            "`hosted_domains` is empty: everybody with a Google account could sign in",
            "name the company's domains",
        ));
    }
    if !preset.has_groups() && !groups.is_empty() {
        return Err(ActError::conflict(
            "`groups`: Google puts no groups into its tokens",
            "leave `groups` out and keep memberships here, or bring people by another provider",
        ));
    }
    Ok(())
}

/// Rejects a domain or an issuer that another upstream has already: it would be unclear whose people
/// they are.
async fn check_others(
    context: &ActContext,
    name: &str,
    issuer: &SubjectIssuer,
    domains: &BTreeSet<String>,
) -> Result<(), ActError> {
    let slashless = |issuer: &SubjectIssuer| {
        let text = issuer.as_str();
        text.strip_suffix('/').unwrap_or(text).to_owned()
    };
    let others = context.all_readable::<UpstreamProvider>().await?;
    for other in others.iter().filter(|other| other.name != name) {
        if slashless(&other.issuer()) == slashless(issuer) {
            return Err(ActError::conflict(
                format!("`issuer`: the upstream `{}` has this issuer already", other.name),
                "change that one, or delete it first",
            ));
        }
        let taken =
            |domain: &&String| other.domains.iter().any(|own| own.eq_ignore_ascii_case(domain));
        if let Some(domain) = domains.iter().find(taken) {
            return Err(ActError::conflict(
                format!(
                    "`domains`: people of `{domain}` sign in at the upstream `{}` already",
                    other.name
                ),
                "a domain belongs to one upstream: remove it from the other one first",
            ));
        }
    }
    Ok(())
}

async fn check_groups(
    context: &ActContext,
    groups: &BTreeMap<String, String>,
) -> Result<(), ActError> {
    for (there, here) in groups {
        check_text("groups", there)?;
        if context.store.by_id::<Group>(here).await?.is_none() {
            return Err(ActError::conflict(
                format!("`groups`: there is no group `{here}` here"),
                "`passavant admin group add` makes one",
            ));
        }
    }
    Ok(())
}

fn check_classes(acr_values: &BTreeMap<String, String>) -> Result<(), ActError> {
    for (there, here) in acr_values {
        check_text("acr_values", there)?;
        check_text("acr_values", here)?;
    }
    Ok(())
}

fn check_claims(claims: [Option<&str>; 2]) -> Result<(), ActError> {
    claims.into_iter().flatten().try_for_each(|claim| check_text("claim", claim))
}

/// Seals what the IdP proves itself with.
async fn authentication(
    idp: &IdpAdmin,
    context: &ActContext,
    (name, preset): (&str, Preset),
    proof: UpstreamProof,
    held: Option<&UpstreamAuthentication>,
) -> Result<UpstreamAuthentication, ActError> {
    let UpstreamProof { method, algorithm, client_secret } = proof;
    if preset == Preset::Entra && method == ProofMethod::PrivateKeyJwt {
        return Err(ActError::conflict(
            "`proof`: Entra reads no keys at a URL",
            "use the method `certificate`",
        ));
    }
    if algorithm.is_some() && method != ProofMethod::PrivateKeyJwt {
        return Err(ActError::conflict(
            "`proof`: an `algorithm` goes with `private_key_jwt` alone",
            "leave it out",
        ));
    }
    let needs = matches!(method, ProofMethod::ClientSecretPost | ProofMethod::ClientSecretBasic);
    if needs != client_secret.is_some() {
        return Err(ActError::conflict(
            "`proof`: a `client_secret` goes with `client_secret_post` and `client_secret_basic`, and only with these",
            "`private_key_jwt` needs no secret, and is to be preferred",
        ));
    }
    let sealing = &idp.0.upstreams.sealing;
    let seal = |value: &[u8]| {
        sealing.seal(&SealedAt::Upstream(name.to_owned()).label(), value).map_err(|error| {
            ActError::conflict(
                format!("the secret cannot be sealed: {error}"),
                "`passavant serve` seals it with the key file of its config",
            )
        })
    };
    Ok(match method {
        ProofMethod::PrivateKeyJwt => {
            if algorithm == Some(Algorithm::PS256) {
                return Err(ActError::conflict(
                    "`proof`: PS256 signs by certificate alone",
                    "use the method `certificate`, or ES256, EdDSA or RS256",
                ));
            }
            context.check_signing_alg("proof", algorithm).await?;
            UpstreamAuthentication::PrivateKeyJwt(algorithm)
        }
        ProofMethod::Certificate => {
            let Some(make) = &idp.0.upstreams.certificate else {
                return Err(ActError::conflict(
                    "`proof`: this server makes no certificates",
                    "use `private_key_jwt`",
                ));
            };
            let made = make(name, context.now());
            let (certificate, key) =
                made.map_err(|error| ActError::conflict(error, "see the server's log"))?;
            let (made, made_key) = (STANDARD.encode(certificate), seal(&key)?);
            match held {
                Some(UpstreamAuthentication::Certificate { certificate, sealed_key, .. }) => {
                    UpstreamAuthentication::Certificate {
                        certificate: certificate.clone(),
                        sealed_key: sealed_key.clone(),
                        next: Some((made, made_key)),
                    }
                }
                _ => UpstreamAuthentication::Certificate {
                    certificate: made,
                    sealed_key: made_key,
                    next: None,
                },
            }
        }
        ProofMethod::NextCertificate => {
            let Some(UpstreamAuthentication::Certificate { next: Some((next, key)), .. }) = held
            else {
                return Err(ActError::conflict(
                    "`proof`: there is no certificate that follows",
                    "`passavant admin upstream change --proof certificate` makes one",
                ));
            };
            UpstreamAuthentication::Certificate {
                certificate: next.clone(),
                sealed_key: key.clone(),
                next: None,
            }
        }
        ProofMethod::ClientSecretPost | ProofMethod::ClientSecretBasic => {
            let secret = client_secret.unwrap_or_default();
            check_text("client_secret", &secret)?;
            let sealed = seal(secret.as_bytes())?;
            if method == ProofMethod::ClientSecretPost {
                UpstreamAuthentication::SecretPost(sealed)
            } else {
                UpstreamAuthentication::SecretBasic(sealed)
            }
        }
    })
}

fn own_issuer(member: &str) -> ActError {
    ActError::conflict(
        format!("`{member}` is this identity provider's own"),
        "name the one in front of which this one stands",
    )
}

/// Refuses members that belong to the other protocol.
fn check_belongs(said: &[(&str, bool)], to: &str, instead: &str) -> Result<(), ActError> {
    match said.iter().find(|(_, said)| *said) {
        None => Ok(()),
        Some((member, _)) => {
            Err(ActError::conflict(format!("`{member}` belongs to {to} alone"), instead))
        }
    }
}

/// An upstream of SAML signs its requests, or nothing.
fn check_proof(protocol: &UpstreamProtocol, proof: &UpstreamProof) -> Result<(), ActError> {
    let signs = matches!(proof.method, ProofMethod::Certificate | ProofMethod::NextCertificate);
    if signs || matches!(protocol, UpstreamProtocol::OpenId(_)) {
        return Ok(());
    }
    Err(ActError::conflict(
        "`proof`: requests of SAML are signed by certificate",
        "use the method `certificate`, or leave it out",
    ))
}

/// The side of OpenID Connect of a new upstream.
fn new_open_id(
    idp: &IdpAdmin,
    preset: Preset,
    new: &NewUpstream,
) -> Result<OpenIdProvider, ActError> {
    let missing = |member: &str| {
        ActError::conflict(
            format!("`{member}` is missing"),
            "an upstream of OpenID Connect has `issuer` and `client_id`, one of SAML has `saml`",
        )
    };
    let issuer = new.issuer.clone().ok_or_else(|| missing("issuer"))?;
    let client_id = new.client_id.clone().ok_or_else(|| missing("client_id"))?;
    check_text("client_id", &client_id)?;
    if idp.issuer().is_spelled(issuer.as_str()) {
        return Err(own_issuer("issuer"));
    }
    check_product(preset, &issuer, &new.tenants, &new.hosted_domains, &new.groups)?;
    check_domain_names("hosted_domains", &new.hosted_domains)?;
    Ok(OpenIdProvider {
        issuer,
        tenants: new.tenants.clone(),
        hosted_domains: new.hosted_domains.clone(),
        client_id,
        algorithm: new.id_token_signing_alg.unwrap_or(Algorithm::RS256),
        scopes: new.scopes.clone(),
        asks_consent: new.asks_consent.unwrap_or(preset.asks_consent()),
    })
}

fn change_open_id(open_id: &mut OpenIdProvider, change: &UpstreamChange) {
    put(&mut open_id.tenants, change.tenants.clone());
    put(&mut open_id.hosted_domains, change.hosted_domains.clone());
    put(&mut open_id.client_id, change.client_id.clone());
    put(&mut open_id.algorithm, change.id_token_signing_alg);
    put(&mut open_id.scopes, change.scopes.clone());
    put(&mut open_id.asks_consent, change.asks_consent);
}

/// Checks a change. Returns whether fewer people are let in by it: who may not sign in any more has
/// nothing any more; refresh tokens of another client id are of no use.
fn check_open_id_change(
    preset: Preset,
    held: &OpenIdProvider,
    groups: &BTreeMap<String, String>,
    change: &UpstreamChange,
) -> Result<bool, ActError> {
    let said = [("saml", change.saml.is_some())];
    check_belongs(&said, "SAML", "leave it out: what an upstream speaks cannot change")?;
    if let Some(client_id) = &change.client_id {
        check_text("client_id", client_id)?;
    }
    let mut open_id = held.clone();
    change_open_id(&mut open_id, change);
    check_product(preset, &held.issuer, &open_id.tenants, &open_id.hosted_domains, groups)?;
    check_domain_names("hosted_domains", &open_id.hosted_domains)?;
    Ok(!held.tenants.is_subset(&open_id.tenants)
        || !held.hosted_domains.is_subset(&open_id.hosted_domains)
        || open_id.client_id != held.client_id)
}

/// An identity provider's metadata, as an administrator gave it.
fn described(context: &ActContext, metadata: &str) -> Result<IdentityProviderMetadata, ActError> {
    IdentityProviderMetadata::read(metadata, context.now()).map_err(|error| {
        ActError::conflict(
            format!("`saml`: {error}"),
            "give the metadata document of the identity provider, as it offers it to download",
        )
    })
}

/// The side of SAML of a new upstream.
fn new_saml(
    idp: &IdpAdmin,
    context: &ActContext,
    preset: Preset,
    new: &NewUpstream,
    saml: &NewSaml,
) -> Result<SamlProvider, ActError> {
    let said = [
        ("issuer", new.issuer.is_some()),
        ("client_id", new.client_id.is_some()),
        ("tenants", !new.tenants.is_empty()),
        ("hosted_domains", !new.hosted_domains.is_empty()),
        ("id_token_signing_alg", new.id_token_signing_alg.is_some()),
        ("scopes", !new.scopes.is_empty()),
        ("asks_consent", new.asks_consent.is_some()),
    ];
    check_belongs(&said, "OpenID Connect", "leave it out: the metadata says the rest")?;
    let described = described(context, &saml.metadata)?;
    if idp.issuer().is_spelled(described.entity_id.as_str()) {
        return Err(own_issuer("saml"));
    }
    let format = saml.name_id_format.as_deref().unwrap_or("persistent");
    let short = FORMATS.iter().find(|(short, _)| *short == format);
    let format = short.map_or(format, |(_, uri)| uri);
    if format == FORMAT_TRANSIENT || SubjectIssuer::entity_id(format).is_err() {
        return Err(ActError::conflict(
            "`name_id_format` is none that people can be known by",
            "`persistent`, `unspecified`, `email`, or another URI; a transient one is new at each sign-in",
        ));
    }
    if let Some(attribute) = &saml.subject_attribute {
        check_text("subject_attribute", attribute)?;
    }
    let usual = usual_subject_attribute(preset).map(str::to_owned);
    Ok(SamlProvider {
        entity_id: described.entity_id,
        redirect: described.redirect,
        post: described.post,
        certificates: described.certificates,
        sign_requests: saml.sign_requests.unwrap_or(described.wants_signed_requests),
        name_id_format: format.to_owned(),
        subject_attribute: saml.subject_attribute.clone().or(usual),
    })
}

fn change_saml(
    saml: &mut SamlProvider,
    described: Option<IdentityProviderMetadata>,
    change: &UpstreamChange,
) {
    if let Some(described) = described {
        saml.redirect = described.redirect;
        saml.post = described.post;
        saml.certificates = described.certificates;
    }
    put(&mut saml.sign_requests, change.saml.as_ref().and_then(|saml| saml.sign_requests));
}

/// Checks a change. Returns the new metadata, if there is some.
fn check_saml_change(
    context: &ActContext,
    held: &SamlProvider,
    change: &UpstreamChange,
) -> Result<Option<IdentityProviderMetadata>, ActError> {
    let said = [
        ("client_id", change.client_id.is_some()),
        ("tenants", change.tenants.is_some()),
        ("hosted_domains", change.hosted_domains.is_some()),
        ("id_token_signing_alg", change.id_token_signing_alg.is_some()),
        ("scopes", change.scopes.is_some()),
        ("asks_consent", change.asks_consent.is_some()),
    ];
    check_belongs(&said, "OpenID Connect", "leave it out: this upstream speaks SAML")?;
    let metadata = change.saml.as_ref().and_then(|saml| saml.metadata.as_deref());
    let Some(metadata) = metadata else { return Ok(None) };
    let described = described(context, metadata)?;
    if described.entity_id == held.entity_id {
        return Ok(Some(described));
    }
    Err(ActError::conflict(
        format!(
            "`saml`: the metadata is that of `{}`, and this upstream is `{}`",
            described.entity_id, held.entity_id
        ),
        "people are known by it: add another upstream",
    ))
}

/// Makes an upstream what a change says, which was checked.
pub(super) fn applied(
    upstream: &mut UpstreamProvider,
    change: UpstreamChange,
    described: Option<IdentityProviderMetadata>,
    proof: Option<UpstreamAuthentication>,
) {
    match &mut upstream.protocol {
        UpstreamProtocol::OpenId(open_id) => change_open_id(open_id, &change),
        UpstreamProtocol::Saml(saml) => change_saml(saml, described, &change),
    }
    put(&mut upstream.display_name, change.display_name);
    put(&mut upstream.authentication, proof);
    put(&mut upstream.domains, change.domains);
    put(&mut upstream.username_claim, change.username_claim);
    put(&mut upstream.groups_claim, change.groups_claim);
    put(&mut upstream.groups, change.groups);
    put(&mut upstream.acr_values, change.acr_values);
    put(&mut upstream.just_in_time, change.just_in_time);
    if change.external_id_is_subject.is_some() {
        upstream.external_id_is_subject = change.external_id_is_subject;
    }
}

/// The metadata of a change, where the upstream speaks SAML.
pub(super) fn described_change(
    context: &ActContext,
    held: &UpstreamProvider,
    change: &UpstreamChange,
) -> Result<Option<IdentityProviderMetadata>, ActError> {
    match held.saml() {
        Some(saml) => check_saml_change(context, saml, change),
        None => Ok(None),
    }
}

/// Whether this IdP proves itself at an upstream as is said here, secret and all.
pub(super) fn is_proved_by(idp: &IdpAdmin, held: &UpstreamProvider, proof: &UpstreamProof) -> bool {
    let label = SealedAt::Upstream(held.name.clone()).label();
    let secret = |sealed: &str| {
        let opened = idp.0.upstreams.sealing.open_text(&label, sealed).ok();
        opened
            .zip(proof.client_secret.as_deref())
            .is_some_and(|(held, said)| equal_in_constant_time(held.expose(), said))
    };
    match (&held.authentication, proof.method) {
        (UpstreamAuthentication::PrivateKeyJwt(algorithm), ProofMethod::PrivateKeyJwt) => {
            *algorithm == proof.algorithm
        }
        (UpstreamAuthentication::Certificate { .. }, ProofMethod::Certificate) => true,
        (UpstreamAuthentication::SecretPost(sealed), ProofMethod::ClientSecretPost)
        | (UpstreamAuthentication::SecretBasic(sealed), ProofMethod::ClientSecretBasic) => {
            secret(sealed)
        }
        _ => false,
    }
}

impl ManagedKind<IdpAdmin> for Upstreams {
    type Record = UpstreamProvider;

    async fn view(
        idp: &IdpAdmin,
        _: &ActContext,
        held: &UpstreamProvider,
    ) -> Result<UpstreamView, ActError> {
        Ok(view(idp, held))
    }

    async fn add(
        idp: &IdpAdmin,
        context: &ActContext,
        new: NewUpstream,
    ) -> Result<UpstreamView, ActError> {
        check_name(&new.name)?;
        let display_name = new.display_name.clone().unwrap_or_else(|| new.name.clone());
        check_text("display_name", &display_name)?;
        let preset = preset_of(new.preset);
        let protocol = match &new.saml {
            Some(saml) => UpstreamProtocol::Saml(new_saml(idp, context, preset, &new, saml)?),
            None => UpstreamProtocol::OpenId(new_open_id(idp, preset, &new)?),
        };
        check_domain_names("domains", &new.domains)?;
        check_groups(context, &new.groups).await?;
        check_classes(&new.acr_values)?;
        check_claims([new.username_claim.as_deref(), new.groups_claim.as_deref()])?;
        let signs = new.saml.is_some() || preset == Preset::Entra;
        let proof = new.proof.unwrap_or_else(|| UpstreamProof {
            method: if signs { ProofMethod::Certificate } else { ProofMethod::PrivateKeyJwt },
            ..UpstreamProof::default()
        });
        check_proof(&protocol, &proof)?;
        let named = (new.name.as_str(), preset);
        let authentication = authentication(idp, context, named, proof, None).await?;
        let upstream = UpstreamProvider {
            name: new.name,
            display_name,
            preset,
            protocol,
            authentication,
            domains: new.domains,
            username_claim: new.username_claim,
            groups_claim: new.groups_claim,
            groups: new.groups,
            acr_values: new.acr_values,
            just_in_time: new.just_in_time,
            external_id_is_subject: new.external_id_is_subject,
            disabled: false,
        };
        check_others(context, &upstream.name, &upstream.issuer(), &upstream.domains).await?;
        context.create(&upstream).await?;
        Ok(view(idp, &upstream))
    }

    async fn change(
        idp: &IdpAdmin,
        context: &ActContext,
        id: &str,
        change: UpstreamChange,
    ) -> Result<UpstreamView, ActError> {
        let held = context.find::<UpstreamProvider>(Self::NOUN, id).await?;
        if let Some(name) = &change.display_name {
            check_text("display_name", name)?;
        }
        let groups = change.groups.as_ref().unwrap_or(&held.groups);
        let (fewer, described) = match &held.protocol {
            UpstreamProtocol::OpenId(open_id) => {
                (check_open_id_change(held.preset, open_id, groups, &change)?, None)
            }
            UpstreamProtocol::Saml(saml) => (false, check_saml_change(context, saml, &change)?),
        };
        if let Some(domains) = &change.domains {
            check_domain_names("domains", domains)?;
            check_others(context, id, &held.issuer(), domains).await?;
        }
        if let Some(groups) = &change.groups {
            check_groups(context, groups).await?;
        }
        check_classes(change.acr_values.as_ref().unwrap_or(&held.acr_values))?;
        let claims = [&change.username_claim, &change.groups_claim];
        check_claims(claims.map(|claim| claim.as_ref().and_then(Option::as_deref)))?;
        let proof = match change.proof.clone() {
            Some(proof) => {
                check_proof(&held.protocol, &proof)?;
                let held_one = Some(&held.authentication);
                Some(authentication(idp, context, (id, held.preset), proof, held_one).await?)
            }
            None => None,
        };
        let set =
            move |upstream: &mut UpstreamProvider| applied(upstream, change, described, proof);
        if !fewer {
            return Ok(view(idp, &context.change((Self::NOUN, id), Act::Change, set).await?));
        }
        let event = context.event::<UpstreamProvider>(Act::Change, id);
        let changed = context.store.close_upstream(id, set, event, context.now()).await?;
        Ok(view(idp, &changed.ok_or_else(|| ActError::missing(Self::NOUN, id))?))
    }

    async fn dependents(
        _: &IdpAdmin,
        context: &ActContext,
        id: &str,
    ) -> Result<Dependents, ActError> {
        let links = context.store.person_links(None, Some(id)).await?.into_iter();
        let records =
            links.map(|held| dependent("link", held.link.subject, Fate::Deleted)).collect();
        Ok(Dependents { records })
    }
}

impl Switched<IdpAdmin> for Upstreams {
    fn set(upstream: &mut UpstreamProvider, disabled: bool) {
        upstream.disabled = disabled;
    }

    /// Switching off ends what people have by way of it.
    async fn switch(
        idp: &IdpAdmin,
        context: &ActContext,
        id: &str,
        disabled: bool,
    ) -> Result<UpstreamView, ActError> {
        let changed = if disabled {
            let event = context.event::<UpstreamProvider>(Act::Disable, id);
            let off = |upstream: &mut UpstreamProvider| upstream.disabled = true;
            let changed = context.store.close_upstream(id, off, event, context.now()).await?;
            changed.ok_or_else(|| ActError::missing(Self::NOUN, id))?
        } else {
            let on = |upstream: &mut UpstreamProvider| upstream.disabled = false;
            context.change((Self::NOUN, id), Act::Enable, on).await?
        };
        Ok(view(idp, &changed))
    }
}

/// What an upstream knows a person by.
fn link_of(
    upstream: &UpstreamProvider,
    (subject, tenant): (String, Option<String>),
    new: bool,
) -> Result<SubjectLink, ActError> {
    check_text("subject", &subject)?;
    if upstream.preset != Preset::Entra {
        if tenant.is_some() {
            return Err(ActError::conflict("`tenant` belongs to Entra alone", "leave it out"));
        }
        return Ok(SubjectLink { issuer: upstream.issuer(), tenant, subject });
    }
    let Some(OpenIdUpstream { open_id, .. }) = upstream.open_id() else {
        // The entity ID is that of one tenant.
        let named = upstream.issuer();
        let mut parts = named.as_str().split('/');
        let own = parts.find(|part| part.len() == 36 && part.contains('-')).map(str::to_owned);
        return Ok(SubjectLink { issuer: named, tenant: tenant.or(own), subject });
    };
    let own = || {
        let mut parts = open_id.issuer.as_str().split('/');
        parts.find(|part| part.len() == 36 && part.contains('-')).map(str::to_owned)
    };
    let several = is_for_all_tenants(&open_id.issuer);
    let tenant = tenant.or_else(|| if several { None } else { own() });
    // Who was linked by a tenant that was let in before is found by it.
    let listed =
        tenant.as_ref().is_some_and(|tenant| !new || !several || open_id.tenants.contains(tenant));
    let Some(tenant) = tenant.filter(|_| listed) else {
        return Err(ActError::conflict(
            "`tenant` is missing, or not one of the upstream's",
            "`passavant admin upstream show` lists its tenants",
        ));
    };
    let issuer = if several { issuer_of_tenant(&open_id.issuer, &tenant) } else { None };
    let issuer = issuer.unwrap_or_else(|| open_id.issuer.clone()).into();
    Ok(SubjectLink { issuer, tenant: Some(tenant), subject })
}

pub(crate) async fn links(
    context: &ActContext,
    name: &str,
) -> Result<Listed<PersonLinkView>, ActError> {
    context.find::<UpstreamProvider>(Upstreams::NOUN, name).await?;
    let held = context.store.person_links(None, Some(name)).await?;
    let mut items = Vec::with_capacity(held.len());
    for held in held {
        let user = context.store.usable::<User>(&held.user_id).await?;
        items.push(PersonLinkView {
            username: user.map(|user| user.username).unwrap_or_default(),
            user: held.user_id,
            issuer: held.link.issuer.to_string(),
            subject: held.link.subject,
            tenant: held.link.tenant,
            linked_at: held.linked_at.0,
        });
    }
    Ok(Listed { items, unreadable: Vec::new(), next: None })
}

pub(crate) async fn link(
    idp: &IdpAdmin,
    context: &ActContext,
    name: &str,
    new: NewPersonLink,
) -> Result<Nothing, ActError> {
    let upstream = context.find::<UpstreamProvider>(Upstreams::NOUN, name).await?;
    let user = Users::id_of(idp, context, &new.user).await?;
    let link = link_of(&upstream, (new.subject, new.tenant), true)?;
    let event = context
        .event::<UpstreamProvider>(Act::Link, name)
        .person(&user)
        .with(Detail::Issuer, link.issuer.as_str())
        .with(Detail::Subject, link.subject.as_str());
    if context.store.link_person((name, &link), &user, event, context.now()).await? {
        return Ok(Nothing {});
    }
    Err(ActError::conflict(
        format!("`{}` is linked to a user already", link.subject),
        "`passavant admin upstream links` says to whom; unlink them first",
    ))
}

pub(crate) async fn unlink(
    context: &ActContext,
    name: &str,
    said: PersonLinkQuery,
) -> Result<(), ActError> {
    let upstream = context.find::<UpstreamProvider>(Upstreams::NOUN, name).await?;
    let link = link_of(&upstream, (said.subject, said.tenant), false)?;
    let event = context
        .event::<UpstreamProvider>(Act::Unlink, name)
        .with(Detail::Issuer, link.issuer.as_str())
        .with(Detail::Subject, link.subject.as_str());
    if context.store.unlink_person(&link, event, context.now()).await? {
        return Ok(());
    }
    Err(ActError::Missing(
        format!("nobody of `{name}` is linked as `{}`", link.subject),
        "`passavant admin upstream links` lists them".to_owned(),
    ))
}

pub(crate) async fn check(
    idp: &IdpAdmin,
    context: &ActContext,
    name: &str,
) -> Result<Listed<UpstreamLeg>, ActError> {
    let upstream = context.find::<UpstreamProvider>(Upstreams::NOUN, name).await?;
    let Some(check) = &idp.0.upstreams.check else {
        return Err(ActError::conflict(
            "this server cannot look at upstreams",
            "ask where `passavant serve` runs the identity provider",
        ));
    };
    // On record before anything is sent.
    let event = context.event::<UpstreamProvider>(Act::Check, name);
    context.store.record_act(event).await?;
    let items = check(upstream).await;
    Ok(Listed { items, unreadable: Vec::new(), next: None })
}
