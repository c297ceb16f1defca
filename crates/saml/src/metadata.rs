//! Metadata: an identity provider's, which an administrator gives, and ours.

use crate::{
    instant,
    signature::{distinct, public_key},
    xml::{Besides, Element, METADATA, PROTOCOL, SIGNATURE, Xml, escaped},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use passavant_proto::{identifier::SubjectIssuer, others_text::shown, time::Timestamp};
use url::Url;

/// Longest metadata document that is read, in bytes.
const LONGEST: usize = 256 * 1024;
/// Maximum number of certificates: each one costs a verification.
const CERTIFICATES: usize = 16;

const REDIRECT_BINDING: &str = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect";
const POST_BINDING: &str = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST";

/// What of an identity provider's metadata is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityProviderMetadata {
    /// Its entity ID.
    pub entity_id: SubjectIssuer,
    /// Where it takes requests by redirect.
    pub redirect: Option<String>,
    /// Where it takes requests by POST.
    pub post: Option<String>,
    /// Every certificate that it may sign with: DER in base64.
    pub certificates: Vec<String>,
    /// It wants requests to be signed.
    pub wants_signed_requests: bool,
}

/// Why metadata cannot be used: a clause about the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the metadata {0}")]
pub struct MetadataError(String);

fn bad(what: impl Into<String>) -> MetadataError {
    MetadataError(what.into())
}

impl IdentityProviderMetadata {
    /// Reads the metadata of one identity provider. Whoever gives it vouches for it: a signature over
    /// it is not verified.
    pub fn read(text: &str, now: Timestamp) -> Result<Self, MetadataError> {
        let text = text.trim_start_matches('\u{feff}').trim();
        let xml = Xml::read(text, LONGEST, Besides::Remarks).map_err(bad)?;
        let root = xml.root();
        let entity = if root.is(METADATA, "EntitiesDescriptor") {
            let providers = root.all(METADATA, "EntityDescriptor").into_iter();
            let mut providers =
                providers.filter(|one| !one.all(METADATA, "IDPSSODescriptor").is_empty());
            match (providers.next(), providers.next()) {
                (Some(one), None) => one,
                _ => return Err(bad("does not describe exactly one identity provider")),
            }
        } else {
            root
        };
        if !entity.is(METADATA, "EntityDescriptor") {
            let name = shown(entity.name(), 60);
            return Err(bad(format!("begins with `{name}`, not with `EntityDescriptor`")));
        }
        let entity_id = entity.attribute("entityID").unwrap_or_default();
        let entity_id = SubjectIssuer::entity_id(entity_id).map_err(|error| {
            bad(format!("names itself `{}`, which {error}", shown(entity_id, 100)))
        })?;
        let role = entity.only(METADATA, "IDPSSODescriptor");
        let role = role.ok_or_else(|| {
            bad("has no `IDPSSODescriptor`, or several: it is not that of an identity provider")
        })?;
        let protocols = role.attribute("protocolSupportEnumeration").unwrap_or_default();
        if !protocols.split_ascii_whitespace().any(|protocol| protocol == PROTOCOL) {
            return Err(bad("is not about SAML 2.0"));
        }
        for element in [&entity, &role] {
            if let Some(until) = element.attribute("validUntil") {
                let until =
                    instant::read_any(until).ok_or_else(|| bad("has an odd `validUntil`"))?;
                if until <= now {
                    return Err(bad("has expired: get it anew"));
                }
            }
        }
        let certificates = certificates(&role)?;
        let at = |binding: &str| -> Result<Option<String>, MetadataError> {
            let services = role.all(METADATA, "SingleSignOnService");
            let mut services =
                services.iter().filter(|one| one.attribute("Binding") == Some(binding));
            let location = services.next().and_then(|one| one.attribute("Location"));
            location.map(location_of).transpose()
        };
        let (redirect, post) = (at(REDIRECT_BINDING)?, at(POST_BINDING)?);
        if redirect.is_none() && post.is_none() {
            return Err(bad("has no `SingleSignOnService` by redirect or POST"));
        }
        let wants = role.attribute("WantAuthnRequestsSigned");
        let wants_signed_requests = matches!(wants.map(str::trim), Some("true" | "1"));
        Ok(Self { entity_id, redirect, post, certificates, wants_signed_requests })
    }
}

/// An address that browsers are sent to: https, or http on this machine.
fn location_of(text: &str) -> Result<String, MetadataError> {
    let url = Url::parse(text).ok().filter(|_| text.len() <= 2048);
    let secure = |url: &Url| match url.scheme() {
        "https" => true,
        "http" => passavant_proto::identifier::is_loopback(url),
        _ => false,
    };
    let url = url.filter(secure).filter(|url| {
        url.username().is_empty() && url.password().is_none() && url.fragment().is_none()
    });
    url.map(String::from).ok_or_else(|| {
        bad(format!("has the address `{}`, which is not an https:// URL", shown(text, 200)))
    })
}

/// Every certificate that is there to sign with: those without a `use` are for both (Metadata 2.4.1.1).
fn certificates(role: &Element<'_, '_>) -> Result<Vec<String>, MetadataError> {
    let mut certificates = Vec::new();
    for descriptor in role.all(METADATA, "KeyDescriptor") {
        if descriptor.attribute("use").is_some_and(|used| used != "signing") {
            continue;
        }
        for info in descriptor.all(SIGNATURE, "KeyInfo") {
            for data in info.all(SIGNATURE, "X509Data") {
                for certificate in data.all(SIGNATURE, "X509Certificate") {
                    let text = certificate.text().unwrap_or_default();
                    let text: String = text.split_ascii_whitespace().collect();
                    let der = STANDARD
                        .decode(text)
                        .map_err(|_| bad("has a certificate that is no base64"))?;
                    certificates.push(der);
                }
            }
        }
    }
    // Those of other keys, beside one that does, are left out.
    let mut certificates = distinct(certificates);
    let all = certificates.len();
    certificates.retain(|der| public_key(der).is_some());
    if certificates.is_empty() {
        return Err(bad(if all == 0 {
            "has no certificate to verify signatures with"
        } else {
            "has no certificate with an RSA key of 2048 bits or more"
        }));
    }
    if certificates.len() > CERTIFICATES {
        return Err(bad(format!("has more than {CERTIFICATES} certificates")));
    }
    Ok(certificates.iter().map(|der| STANDARD.encode(der)).collect())
}

/// Our own metadata, for a provider to read. `certificates`: those that we sign with, now and later;
/// DER in base64.
pub fn service_provider_metadata(
    entity_id: &str,
    assertion_consumer_service: &str,
    name_id_format: &str,
    (certificates, signs): (&[&str], bool),
) -> String {
    let keys: Vec<String> = certificates
        .iter()
        .map(|certificate| {
            let certificate = escaped(certificate);
            format!(
                r#"<md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="{SIGNATURE}"><ds:X509Data><ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>"#
            )
        })
        .collect();
    let (entity_id, acs) = (escaped(entity_id), escaped(assertion_consumer_service));
    let format = escaped(name_id_format);
    let keys = keys.concat();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<md:EntityDescriptor xmlns:md="{METADATA}" entityID="{entity_id}"><md:SPSSODescriptor AuthnRequestsSigned="{signs}" WantAssertionsSigned="true" protocolSupportEnumeration="{PROTOCOL}">{keys}<md:NameIDFormat>{format}</md:NameIDFormat><md:AssertionConsumerService Binding="{POST_BINDING}" Location="{acs}" index="0" isDefault="true"></md:AssertionConsumerService></md:SPSSODescriptor></md:EntityDescriptor>
"#
    )
}
