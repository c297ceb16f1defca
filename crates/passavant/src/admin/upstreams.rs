//! The company's own identity providers, as commands.

use super::{
    acts::{Saying, change, delete, list, one, switch, words},
    api::Api,
    args::{ById, Upstream, UpstreamOptions},
    show::show,
};
use anyhow::{Context, Result, bail};
use passavant_admin::types::{NewPersonLink, PersonLinkQuery, UpstreamLeg, Upstreams};
use passavant_host::plain;
use serde_json::{Map, Value, json};

/// `THERE=HERE` values as an object.
fn pairs(option: &str, said: &[String]) -> Result<Option<Value>> {
    let mut pairs = Map::new();
    for pair in said {
        let (there, here) = pair.rsplit_once('=').with_context(|| {
            format!("--{option} {pair}: not THERE=HERE\nhint: for instance --{option} Engineering=engineering")
        })?;
        pairs.insert(there.to_owned(), here.into());
    }
    Ok((!pairs.is_empty()).then_some(Value::Object(pairs)))
}

impl UpstreamOptions {
    fn said(self, saying: Saying) -> Result<Saying> {
        let secret = match &self.client_secret_file {
            Some(file) => Some(passavant_host::read_secret(file, passavant_host::Shared::Group)?),
            None => None,
        };
        let method = match (self.proof, &secret) {
            (None, Some(_)) => Some("client_secret_basic".to_owned()),
            (None, None) => self.proof_algorithm.as_ref().map(|_| "private_key_jwt".to_owned()),
            (method, _) => method,
        };
        let proof = method.map(|method| {
            let mut proof = json!({"method": method});
            if let Some(algorithm) = self.proof_algorithm {
                proof["algorithm"] = algorithm.into();
            }
            if let Some(secret) = secret {
                proof["client_secret"] = secret.expose().into();
            }
            proof
        });
        Ok(saying
            .with("display_name", self.display_name)
            .with("proof", proof)
            .with("id_token_signing_alg", self.id_token_signing_alg)
            .list("domains", self.domains)
            .list("tenants", self.tenants)
            .list("hosted_domains", self.hosted_domains)
            .with("scopes", self.scopes.map(|scopes| words(&scopes)))
            .or_none("username_claim", self.username_claim)
            .or_none("groups_claim", self.groups_claim)
            .with("groups", pairs("group", &self.groups)?)
            .with("acr_values", pairs("acr", &self.acr_values)?))
    }
}

pub(super) async fn upstreams(api: &Api, upstream: Upstream, as_json: bool) -> Result<()> {
    let value = match upstream {
        Upstream::Check(ById { id }) => return check(api, &id, as_json).await,
        Upstream::Add { name, issuer, client_id, preset, just_in_time, options } => {
            let said = Saying::new()
                .with("name", Some(name))
                .with("issuer", Some(issuer))
                .with("client_id", Some(client_id))
                .with("preset", Some(preset))
                .with("just_in_time", Some(just_in_time));
            let new = options.said(said)?.typed()?;
            serde_json::to_value(api.server.add::<Upstreams>(&new).await?)?
        }
        Upstream::List(listing) => list::<Upstreams>(api, &listing).await?,
        Upstream::Show(id) => one::<Upstreams>(api, id).await?,
        Upstream::Change { name, client_id, just_in_time, options } => {
            let said =
                Saying::new().with("client_id", client_id).with("just_in_time", just_in_time);
            change::<Upstreams>(api, &name, options.said(said)?).await?
        }
        Upstream::Links(ById { id }) => {
            serde_json::to_value(api.server.person_links(&id).await?.items)?
        }
        Upstream::Link { name, user, subject, tenant } => {
            let link = NewPersonLink { user, subject, tenant };
            api.server.link_person(&name, &link).await?;
            Value::Null
        }
        Upstream::Unlink { name, subject, tenant } => {
            let link = PersonLinkQuery { subject, tenant };
            api.server.unlink_person(&name, &link).await?;
            Value::Null
        }
        Upstream::Disable(id) => switch::<Upstreams>(api, id, false).await?,
        Upstream::Enable(id) => switch::<Upstreams>(api, id, true).await?,
        Upstream::Delete(gone) => delete::<Upstreams>(api, gone).await?,
    };
    show(&value, as_json)
}

/// Every leg on a line, and below what does not work, who has to change what.
pub(crate) fn legs_text(legs: &[UpstreamLeg]) -> String {
    let mut text = String::new();
    for leg in legs {
        let mark = if leg.works { "ok" } else { "bad" };
        text.push_str(&format!("{mark:<4} {:<24} {}\n", leg.leg, plain(&leg.found)));
        if let Some(hint) = &leg.hint {
            text.push_str(&format!("     hint: {}\n", plain(hint)));
        }
    }
    text
}

/// Looks at every leg; fails if one does not work.
async fn check(api: &Api, name: &str, as_json: bool) -> Result<()> {
    let legs = api.server.check_upstream(name).await?.items;
    if as_json {
        println!("{}", passavant_host::json_text(&serde_json::to_value(&legs)?)?);
    } else {
        print!("{}", legs_text(&legs));
    }
    let bad = legs.iter().filter(|leg| !leg.works).count();
    if bad > 0 {
        bail!("{bad} of {} do not work", legs.len());
    }
    Ok(())
}
