//! The company's own identity providers, as commands.

use super::{
    acts::{Saying, change, delete, list, one, switch, words},
    api::Api,
    args::{ById, Upstream, UpstreamOptions},
    secret_out::SecretOut,
    show::show,
};
use anyhow::{Context, Result, bail};
use passavant_admin::types::{
    NewPersonLink, NewProvisioningToken, PersonLinkQuery, UpstreamLeg, Upstreams,
};
use passavant_host::plain;
use serde_json::{Map, Value, json};

/// `THERE=HERE` values as an object.
fn pairs(option: &str, said: &[String]) -> Result<Option<Value>> {
    let mut pairs = Map::new();
    if said == ["-"] {
        return Ok(Some(Value::Object(pairs)));
    }
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
        // `-` for none.
        let some = |said: Vec<String>| match said.as_slice() {
            [] => None,
            [none] if none == "-" => Some(Vec::new()),
            _ => Some(said),
        };
        let mut saml = self.saml;
        if let Some(file) = &self.metadata {
            let text = std::fs::read_to_string(file).with_context(|| {
                format!("{}: the metadata cannot be read\nhint: give the XML file that the identity provider offers", file.display())
            })?;
            saml.insert("metadata".to_owned(), text.into());
        }
        saml.extend(self.sign_requests.map(|signs| ("sign_requests".to_owned(), signs.into())));
        let saml = (!saml.is_empty()).then_some(Value::Object(saml));
        Ok(saying
            .with("saml", saml)
            .with("display_name", self.display_name)
            .with("proof", proof)
            .with("id_token_signing_alg", self.id_token_signing_alg)
            .with("domains", some(self.domains))
            .with("tenants", some(self.tenants))
            .with("hosted_domains", some(self.hosted_domains))
            .with("scopes", self.scopes.map(|scopes| words(&scopes)))
            .or_none("username_claim", self.username_claim)
            .or_none("groups_claim", self.groups_claim)
            .with("asks_consent", self.asks_consent)
            .with("external_id_is_subject", self.external_id_is_subject)
            .with("groups", pairs("group", &self.groups)?)
            .with("acr_values", pairs("acr", &self.acr_values)?))
    }
}

pub(super) async fn upstreams(api: &Api, upstream: Upstream, as_json: bool) -> Result<()> {
    let value = match upstream {
        Upstream::Check(ById { id }) => return check(api, &id, as_json).await,
        Upstream::Add {
            name,
            issuer,
            client_id,
            name_id_format,
            subject_attribute,
            preset,
            just_in_time,
            mut options,
        } => {
            for (member, said) in
                [("name_id_format", name_id_format), ("subject_attribute", subject_attribute)]
            {
                options.saml.extend(said.map(|said| (member.to_owned(), said.into())));
            }
            let said = Saying::new()
                .with("name", Some(name))
                .with("issuer", issuer)
                .with("client_id", client_id)
                .with("preset", Some(preset))
                .with("just_in_time", Some(just_in_time));
            let new = options.said(said)?.typed()?;
            let made = serde_json::to_value(api.server.add::<Upstreams>(&new).await?)?;
            return show_one(made, as_json);
        }
        Upstream::List(listing) => list::<Upstreams>(api, &listing).await?,
        Upstream::Show(id) => return show_one(one::<Upstreams>(api, id).await?, as_json),
        Upstream::Change { name, client_id, just_in_time, options } => {
            let said =
                Saying::new().with("client_id", client_id).with("just_in_time", just_in_time);
            return show_one(change::<Upstreams>(api, &name, options.said(said)?).await?, as_json);
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
        Upstream::Token { name, days, token_out } => {
            let mut out = SecretOut::new("--token-out", token_out)?;
            let new = NewProvisioningToken { days: Some(days) };
            let made = api.server.add_provisioning_token(&name, &new).await?;
            out.keep(serde_json::to_value(made)?, "token")?
        }
        Upstream::Tokens(ById { id }) => {
            serde_json::to_value(api.server.provisioning_tokens(&id).await?.items)?
        }
        Upstream::RevokeToken { name, token } => {
            api.server.revoke_provisioning_token(&name, &token).await?;
            Value::Null
        }
        Upstream::Disable(id) => switch::<Upstreams>(api, id, false).await?,
        Upstream::Enable(id) => switch::<Upstreams>(api, id, true).await?,
        Upstream::Delete(gone) => delete::<Upstreams>(api, gone).await?,
    };
    show(&value, as_json)
}

/// An upstream, with its certificates as they are uploaded.
fn show_one(mut upstream: Value, as_json: bool) -> Result<()> {
    if as_json {
        return show(&upstream, true);
    }
    let taken = ["certificate", "next_certificate"]
        .map(|member| upstream.as_object_mut().and_then(|members| members.remove(member)));
    show(&upstream, false)?;
    for (what, certificate) in
        ["the certificate to upload there", "the one that follows it"].into_iter().zip(taken)
    {
        if let Some(certificate) = certificate.as_ref().and_then(Value::as_str) {
            println!("\n{what}:");
            for line in certificate.lines() {
                println!("{}", plain(line));
            }
        }
    }
    Ok(())
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
