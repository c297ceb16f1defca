//! The upstreams that a config names: each start makes them what it says.

use crate::{config::WrittenUpstream, serve::open_store};
use anyhow::{Context, Error, Result, anyhow, bail};
use passavant_admin::{
    Held, IdpAdmin, UpstreamTools,
    types::{NewSaml, NewUpstream, ProofMethod, UpstreamProof},
};
use passavant_authority::{Passwords, Sealing};
use passavant_host::{self as system, Shared};
use passavant_proto::identifier::Issuer;
use std::{collections::BTreeSet, sync::Arc};

/// What a server whose database is empty refuses about them: each with its place in the config.
pub(crate) async fn refused(
    issuer: &Issuer,
    all: &[WrittenUpstream],
    shared: Shared,
) -> Result<Vec<(String, Error)>> {
    let mut wrong = Vec::new();
    if all.is_empty() {
        return Ok(wrong);
    }
    // The very acts, on a database that is thrown away.
    let folder = tempfile::tempdir().context("there is no folder for temporary files")?;
    let url = format!("sqlite:{}", folder.path().join("upstreams.db").display());
    let store = open_store(&url).await?;
    let (clock, entropy) = (system::clock(), system::entropy());
    let certificate = |_: &str, _| Ok((Vec::new(), Vec::new()));
    let tools = UpstreamTools {
        sealing: Sealing::new(|_, _| Ok(String::new()), |_, _| Err(String::new())),
        certificate: Some(Arc::new(certificate)),
        check: None,
    };
    let passwords = Passwords::new(1);
    let admin = IdpAdmin::new(issuer.clone(), store.clone(), clock, entropy, passwords);
    let admin = admin.upstreams(tools);
    for (i, written) in all.iter().enumerate() {
        let held = match read(written, shared) {
            Ok(new) => admin.hold_upstream(new).await.map_err(|error| anyhow!(error.why)),
            Err(error) => Err(error),
        };
        let name = &written.name;
        if let Err(error) = held.with_context(|| format!("idp.upstream[{i}] `{name}`")) {
            wrong.push((name.clone(), error));
        }
    }
    store.close().await;
    Ok(wrong)
}

/// Makes them so. Before the first is written, all are looked at. One that is there already and cannot
/// become what the config says stays as it is, which the log says: an administrator's act, or metadata that have
/// expired since, keep no server from starting. Another identity provider under its name does.
pub(crate) async fn hold(
    admin: &IdpAdmin,
    issuer: &Issuer,
    all: &[WrittenUpstream],
    shared: Shared,
) -> Result<()> {
    let stays = |name: &str, error: &Error| {
        let error = format!("{error:#}");
        tracing::error!(
            upstream = name,
            error,
            "an upstream stays as it is: it cannot become what the config says"
        );
    };
    let mut stops = Vec::new();
    let mut left = BTreeSet::new();
    for (name, error) in refused(issuer, all, shared).await? {
        if admin.has_upstream(&name).await? {
            stays(&name, &error);
            left.insert(name);
        } else {
            stops.push(system::told(&error));
        }
    }
    if !stops.is_empty() {
        bail!("{}", stops.join("\n"));
    }
    for written in all.iter().filter(|written| !left.contains(&written.name)) {
        let name = &written.name;
        let new = read(written, shared)?;
        match admin.hold_upstream(new).await {
            Ok(Held::Added) => {
                tracing::info!(upstream = name, "an upstream of the config was added");
            }
            Ok(Held::Changed) => {
                tracing::info!(upstream = name, "an upstream was changed to what the config says");
            }
            Ok(Held::Same) => {}
            Err(error) if !error.is_another && admin.has_upstream(name).await? => {
                stays(name, &anyhow!(error.why));
            }
            Err(error) => {
                return Err(anyhow!(error.why)).with_context(|| format!("idp.upstream `{name}`"));
            }
        }
    }
    Ok(())
}

fn read(written: &WrittenUpstream, shared: Shared) -> Result<NewUpstream> {
    let written = written.clone();
    let saml = match &written.metadata_file {
        None => {
            for (member, said) in [
                ("sign_requests", written.sign_requests.is_some()),
                ("name_id_format", written.name_id_format.is_some()),
                ("subject_attribute", written.subject_attribute.is_some()),
            ] {
                if said {
                    bail!(
                        "`{member}` belongs to SAML alone\nhint: name the provider's metadata: `metadata_file`"
                    );
                }
            }
            None
        }
        Some(file) => Some(NewSaml {
            metadata: std::fs::read_to_string(file)
                .with_context(|| format!("metadata_file: {} cannot be read", file.display()))?,
            sign_requests: written.sign_requests,
            name_id_format: written.name_id_format,
            subject_attribute: written.subject_attribute,
        }),
    };
    let client_secret = match &written.client_secret_file {
        None => None,
        Some(file) => Some(system::read_secret(file, shared)?.expose().to_owned()),
    };
    let method = written.proof.or(client_secret.as_ref().map(|_| ProofMethod::ClientSecretBasic));
    let method = method.or(written.proof_algorithm.map(|_| ProofMethod::PrivateKeyJwt));
    let proof = method.map(|method| UpstreamProof {
        method,
        algorithm: written.proof_algorithm,
        client_secret,
    });
    Ok(NewUpstream {
        name: written.name,
        display_name: written.display_name,
        preset: written.preset,
        issuer: written.issuer,
        saml,
        tenants: written.tenants,
        hosted_domains: written.hosted_domains,
        client_id: written.client_id,
        proof,
        id_token_signing_alg: written.id_token_signing_alg,
        domains: written.domains,
        scopes: written.scopes,
        username_claim: written.username_claim,
        groups_claim: written.groups_claim,
        asks_consent: written.asks_consent,
        groups: written.groups,
        acr_values: written.acr_values,
        just_in_time: written.just_in_time,
        external_id_is_subject: written.external_id_is_subject,
    })
}
