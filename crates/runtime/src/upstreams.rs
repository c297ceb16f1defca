//! The upstreams that a config names: each start makes them what it says.

use crate::config::WrittenUpstream;
use anyhow::{Context, Result, anyhow, bail};
use passavant_admin::{
    Held, IdpAdmin,
    types::{NewSaml, NewUpstream, ProofMethod, UpstreamProof},
};
use passavant_host::{self as system, Shared};

/// Makes them so. All are read before the first is written. One that is there already and cannot become
/// what the config says stays as it is, which the log says: an administrator's act, or metadata that have expired
/// since, keep no server from starting.
pub(crate) async fn hold(admin: &IdpAdmin, all: &[WrittenUpstream], shared: Shared) -> Result<()> {
    let told = |name: &str| format!("idp.upstream `{name}`");
    let news: Vec<NewUpstream> = all
        .iter()
        .map(|written| read(written, shared).with_context(|| told(&written.name)))
        .collect::<Result<_>>()?;
    for (written, new) in all.iter().zip(news) {
        let name = &written.name;
        match admin.hold_upstream(new).await {
            Ok(Held::Added) => {
                tracing::info!(upstream = name, "an upstream of the config was added");
            }
            Ok(Held::Changed) => {
                tracing::info!(upstream = name, "an upstream was changed to what the config says");
            }
            Ok(Held::Same) => {}
            Err(error) if admin.has_upstream(name).await? => {
                tracing::error!(
                    upstream = name,
                    error,
                    "an upstream stays as it is: it cannot become what the config says"
                );
            }
            Err(error) => return Err(anyhow!(error)).with_context(|| told(name)),
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
