//! Who an assertion is about, by what an administrator recorded of the identity provider.

use crate::assertion::Assertion;
use passavant_proto::{
    oidc::authentication::Authentication,
    oidc::upstream::{Preset, Unidentified, UpstreamPerson, UpstreamProvider, is_address},
    others_text::is_shown,
    saml::{FORMAT_PERSISTENT, SamlProvider, SamlSubject},
    time::Timestamp,
    xaa::trust::SubjectLink,
};
use std::collections::BTreeSet;
use x509_parser::prelude::*;

/// Names of the attributes that say one thing, as products send them without being told otherwise.
const EMAIL: [&str; 4] = [
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress",
    "urn:oid:0.9.2342.19200300.100.1.3",
    "email",
    "mail",
];
const DISPLAY_NAME: [&str; 4] = [
    "http://schemas.microsoft.com/identity/claims/displayname",
    "urn:oid:2.16.840.1.113730.3.1.241",
    "displayName",
    "name",
];
const GIVEN_NAME: [&str; 4] = [
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/givenname",
    "urn:oid:2.5.4.42",
    "givenName",
    "firstName",
];
const FAMILY_NAME: [&str; 5] = [
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/surname",
    "urn:oid:2.5.4.4",
    "familyName",
    "lastName",
    "sn",
];
const USERNAME: [&str; 5] = [
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
    "urn:oid:0.9.2342.19200300.100.1.1",
    "username",
    "uid",
    "login",
];
/// Entra's tenant id.
const TENANT: &str = "http://schemas.microsoft.com/identity/claims/tenantid";
/// Entra's object id, which the preset knows people by.
const OBJECT: &str = "http://schemas.microsoft.com/identity/claims/objectidentifier";
const ENTRA_GROUPS: &str = "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups";
/// Where Entra's groups are if they are too many for an assertion.
const ENTRA_OVERAGE: &str = "http://schemas.microsoft.com/claims/groups.link";
/// Longest name or address that is kept, in bytes.
const LONGEST: usize = 255;

/// The first of these attributes that has exactly one usable value.
fn first(assertion: &Assertion, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| one(assertion, name))
}

fn one(assertion: &Assertion, name: &str) -> Option<String> {
    match assertion.values(name)?.as_slice() {
        [value] => {
            let value = value.trim();
            let fits = !value.is_empty() && value.len() <= LONGEST && value.chars().all(is_shown);
            fits.then(|| value.to_owned())
        }
        _ => None,
    }
}

/// An identifier, byte for byte.
fn identifier(assertion: &Assertion, name: &str) -> Result<String, Unidentified> {
    let missing = || Unidentified::Attribute(name.to_owned());
    let values = assertion.values(name).ok_or_else(missing)?;
    let [value] = values.as_slice() else { return Err(missing()) };
    let fits = (1..=LONGEST).contains(&value.len())
        && value.trim() == *value
        && value.chars().all(is_shown);
    if fits { Ok((*value).to_owned()) } else { Err(missing()) }
}

/// The attribute that people of a product are known by where an administrator says nothing else.
pub fn usual_subject_attribute(preset: Preset) -> Option<&'static str> {
    (preset == Preset::Entra).then_some(OBJECT)
}

/// Who an assertion is about. It was verified.
pub fn identify(
    upstream: &UpstreamProvider,
    provider: &SamlProvider,
    assertion: &Assertion,
) -> Result<UpstreamPerson, Unidentified> {
    let name_id = assertion.name_id();
    let subject = match &provider.subject_attribute {
        Some(name) => identifier(assertion, name)?,
        None => {
            let named = name_id.filter(|held| held.format() == provider.name_id_format);
            let named = named.ok_or_else(|| {
                let found = name_id.map_or("a transient one, or none", |held| held.format());
                Unidentified::NameId(found.to_owned())
            })?;
            // The value is that of a person only within its qualifiers (Core 8.3.7): of the identity
            // provider, and of the service provider.
            let own = |said: &Option<String>, own: &str| said.as_deref().is_none_or(|it| it == own);
            let qualified = own(&named.name_qualifier, provider.entity_id.as_str())
                && own(&named.sp_name_qualifier, assertion.audience());
            if !qualified && named.format() == FORMAT_PERSISTENT {
                let text = "persistent, within another NameQualifier or SPNameQualifier";
                return Err(Unidentified::NameId(text.to_owned()));
            }
            named.value.clone()
        }
    };
    let tenant = match upstream.preset {
        Preset::Entra => {
            let tenant = identifier(assertion, TENANT)?;
            // The entity ID is that of one tenant.
            let mut parts = provider.entity_id.as_str().split('/');
            if !parts.any(|part| part == tenant) {
                return Err(Unidentified::Tenant(tenant));
            }
            Some(tenant)
        }
        _ => None,
    };
    let email = first(assertion, &EMAIL).filter(|email| is_address(email));
    let username = match &upstream.username_claim {
        Some(name) => one(assertion, name),
        None => first(assertion, &USERNAME).or_else(|| email.clone()),
    };
    let class = assertion.class().and_then(|class| upstream.acr_values.get(class));
    // A time that is yet to come would make every sign-in seem recent; it was refused.
    let auth_time: Timestamp = assertion.authn_instant();
    Ok(UpstreamPerson {
        link: SubjectLink { issuer: provider.entity_id.clone(), tenant, subject },
        username,
        // There is no word in SAML for a verified address: an administrator here wrote whose domain it is.
        email_verified: email.is_some(),
        email,
        display_name: first(assertion, &DISPLAY_NAME),
        given_name: first(assertion, &GIVEN_NAME),
        family_name: first(assertion, &FAMILY_NAME),
        groups: groups_of(upstream, assertion)?,
        saml_subject: name_id.map(|name_id| SamlSubject {
            issuer: provider.entity_id.clone(),
            name_id: name_id.clone(),
        }),
        authentication: Authentication {
            auth_time,
            acr: class.cloned().unwrap_or_default(),
            amr: Vec::new(),
            issuer: Some(provider.entity_id.clone()),
        },
    })
}

fn groups_of(
    upstream: &UpstreamProvider,
    assertion: &Assertion,
) -> Result<Option<BTreeSet<String>>, Unidentified> {
    if upstream.groups.is_empty() {
        return Ok(None);
    }
    let usual = if upstream.preset == Preset::Entra { ENTRA_GROUPS } else { "groups" };
    let name = upstream.groups_claim.as_deref().unwrap_or(usual);
    let Some(values) = assertion.values(name) else {
        let elsewhere = name == ENTRA_GROUPS && assertion.values(ENTRA_OVERAGE).is_some();
        return if elsewhere { Err(Unidentified::GroupOverage) } else { Ok(None) };
    };
    if values.len() > 1000 {
        return Err(Unidentified::Groups);
    }
    let meant = values.iter().filter_map(|group| upstream.groups.get(*group).cloned());
    Ok(Some(meant.collect()))
}

/// When a certificate ends, for whoever looks after it: signatures are verified by its key all the same.
pub fn certificate_ends(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(Timestamp(certificate.validity().not_after.timestamp()))
}
