//! Upstreams that the server's config names: each start makes them what it says.

use super::{
    ActError, ManagedKind,
    context::{ActContext, By},
    upstreams::{applied, described_change, is_proved_by},
};
use crate::{
    servers::IdpAdmin,
    types::{
        Groups, NewGroup, NewUpstream, ProofMethod, SamlChange, UpstreamChange, UpstreamProof,
        Upstreams,
    },
};
use passavant_proto::oidc::upstream::{Preset, UpstreamProvider};
use passavant_store::{Group, StoreError};

/// The name in audit rows of what a config says.
const BY_CONFIG: &str = "the config";

/// What became of an upstream of a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It was added.
    Added,
    /// It was another one before.
    Changed,
    /// It was so already.
    Same,
}

/// Why an upstream is not what a config says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotHeld {
    /// What is wrong, with a hint.
    pub why: String,
    /// The name is that of another identity provider here: people are known by it.
    pub is_another: bool,
}

impl IdpAdmin {
    /// Makes an upstream what the config says, with the groups that its groups mean. What people are known
    /// by cannot change.
    pub async fn hold_upstream(&self, new: NewUpstream) -> Result<Held, NotHeld> {
        let held = self.0.deps.store.by_id::<UpstreamProvider>(&new.name).await;
        if let Ok(Some(held)) = held
            && let Err(error) = check_identity(&held, &new)
        {
            return Err(NotHeld { why: told(&error), is_another: true });
        }
        let held = self.hold(new).await;
        held.map_err(|why| NotHeld { why, is_another: false })
    }

    async fn hold(&self, new: NewUpstream) -> Result<Held, String> {
        // Other nodes may be starting with the same config: what they add meanwhile is there at the next look.
        // Each look gets at least one record further.
        let mut before = None;
        for _ in 0..2 * (new.groups.len() + 3) {
            match hold(self, &new).await {
                Err(
                    ActError::Stale
                    | ActError::Changed
                    | ActError::Broken(StoreError::NameTaken { .. }),
                ) => {}
                Err(error @ ActError::Conflict(..)) => {
                    let error = told(&error);
                    if before.as_ref() == Some(&error) {
                        return Err(error);
                    }
                    before = Some(error);
                }
                held => return held.map_err(|error| told(&error)),
            }
        }
        hold(self, &new).await.map_err(|error| told(&error))
    }

    /// Whether an upstream of this name is there already.
    pub async fn has_upstream(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.0.deps.store.by_id::<UpstreamProvider>(name).await?.is_some())
    }
}

fn told(error: &ActError) -> String {
    match error {
        ActError::Invalid(error, hint)
        | ActError::Conflict(error, hint)
        | ActError::Missing(error, hint) => format!("{error}\nhint: {hint}"),
        ActError::Broken(error) => error.to_string(),
        ActError::Changed | ActError::Stale | ActError::DoneBefore | ActError::Gone => {
            "another node changes it at the same time\nhint: start again".to_owned()
        }
    }
}

async fn hold(idp: &IdpAdmin, new: &NewUpstream) -> Result<Held, ActError> {
    let by = By {
        name: BY_CONFIG.to_owned(),
        address: String::new(),
        request_id: idp.0.deps.entropy.id(),
        rests_on: None,
        once: None,
    };
    let deps = idp.0.deps.clone();
    let context = &ActContext { deps, by, expects: None, policy: None };
    for group in new.groups.values() {
        if context.store.by_id::<Group>(group).await?.is_none() {
            let group = NewGroup { name: group.clone(), description: String::new() };
            Groups::add(idp, context, group).await?;
        }
    }
    let Some(held) = context.store.by_id::<UpstreamProvider>(&new.name).await? else {
        Upstreams::add(idp, context, new.clone()).await?;
        return Ok(Held::Added);
    };
    check_identity(&held, new)?;
    let preset = held.preset;
    let proof = new.proof.clone().unwrap_or_else(|| UpstreamProof {
        method: if held.saml().is_some() || preset == Preset::Entra {
            ProofMethod::Certificate
        } else {
            ProofMethod::PrivateKeyJwt
        },
        ..UpstreamProof::default()
    });
    let change = change_of(&held, new);
    let described = described_change(context, &held, &change)?;
    let mut after = held.clone();
    applied(&mut after, change.clone(), described, None);
    let proved = is_proved_by(idp, &held, &proof);
    if after == held && proved {
        return Ok(Held::Same);
    }
    let change = UpstreamChange { proof: (!proved).then_some(proof), ..change };
    Upstreams::change(idp, context, &held.name, change).await?;
    Ok(Held::Changed)
}

/// People are known by these.
fn check_identity(held: &UpstreamProvider, new: &NewUpstream) -> Result<(), ActError> {
    let same_preset = super::upstreams::preset_of(new.preset) == held.preset;
    let same_protocol = held.saml().is_some() == new.saml.is_some();
    let issuer = new.issuer.as_ref().map(|issuer| issuer.as_str().to_owned());
    let same_issuer = held.saml().is_some() || issuer.as_deref() == Some(held.issuer().as_str());
    if same_preset && same_protocol && same_issuer {
        return check_saml_identity(held, new);
    }
    Err(ActError::conflict(
        format!(
            "the upstream `{}` is {} here already, with another issuer, product or protocol than the config says",
            held.name,
            held.issuer()
        ),
        "people are known by these: give the new one another name; or take it out of the config, start, and delete the \
         old one first",
    ))
}

fn check_saml_identity(held: &UpstreamProvider, new: &NewUpstream) -> Result<(), ActError> {
    let (Some(held_saml), Some(saml)) = (held.saml(), &new.saml) else { return Ok(()) };
    let format = saml.name_id_format.as_ref().is_none_or(|said| *said == held_saml.name_id_format);
    let attribute =
        saml.subject_attribute.is_none() || saml.subject_attribute == held_saml.subject_attribute;
    if format && attribute {
        return Ok(());
    }
    let member = if format { "subject_attribute" } else { "name_id_format" };
    Err(ActError::conflict(
        format!(
            "the upstream `{}` is here already, with another `{member}` than the config says",
            held.name
        ),
        "people are known by it: give the new one another name; or take it out of the config, start, and delete the old \
         one first",
    ))
}

/// Every member that can change, as the config says it; what it does not say is as at a new upstream.
fn change_of(held: &UpstreamProvider, new: &NewUpstream) -> UpstreamChange {
    let common = UpstreamChange {
        display_name: Some(new.display_name.clone().unwrap_or_else(|| new.name.clone())),
        domains: Some(new.domains.clone()),
        username_claim: Some(new.username_claim.clone()),
        groups_claim: Some(new.groups_claim.clone()),
        groups: Some(new.groups.clone()),
        acr_values: Some(new.acr_values.clone()),
        just_in_time: Some(new.just_in_time),
        external_id_is_subject: new.external_id_is_subject,
        ..UpstreamChange::default()
    };
    if let Some(saml) = &new.saml {
        let change =
            SamlChange { metadata: Some(saml.metadata.clone()), sign_requests: saml.sign_requests };
        return UpstreamChange { saml: Some(change), ..common };
    }
    let usual = passavant_proto::jose::jwk::Algorithm::RS256;
    UpstreamChange {
        tenants: Some(new.tenants.clone()),
        hosted_domains: Some(new.hosted_domains.clone()),
        client_id: new.client_id.clone(),
        id_token_signing_alg: Some(new.id_token_signing_alg.unwrap_or(usual)),
        scopes: Some(new.scopes.clone()),
        asks_consent: Some(new.asks_consent.unwrap_or(held.preset.asks_consent())),
        ..common
    }
}
