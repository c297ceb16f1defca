//! XML Signature, as much of it as SAML needs (Core 5.4): a signature inside the element that it
//! covers, over that element as a whole.

use crate::xml::{Element, SIGNATURE, Xml};
use aws_lc_rs::{
    digest::{self, SHA256, SHA384, SHA512},
    signature::{
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
        RsaParameters, UnparsedPublicKey,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bergshamra_c14n::{C14nMode, C14nSink, canonicalize_doc_to};
use bergshamra_xml::NodeSet;
use std::collections::HashSet;
use x509_parser::{oid_registry::OID_PKCS1_RSAENCRYPTION, prelude::*, public_key::PublicKey};

const EXCLUSIVE: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
/// Signatures that are verified, with the algorithm of the key. SHA-1 is not among them.
const SIGNATURES: [(&str, &RsaParameters); 3] = [
    ("http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", &RSA_PKCS1_2048_8192_SHA256),
    ("http://www.w3.org/2001/04/xmldsig-more#rsa-sha384", &RSA_PKCS1_2048_8192_SHA384),
    ("http://www.w3.org/2001/04/xmldsig-more#rsa-sha512", &RSA_PKCS1_2048_8192_SHA512),
];
const DIGESTS: [(&str, &digest::Algorithm); 3] = [
    ("http://www.w3.org/2001/04/xmlenc#sha256", &SHA256),
    ("http://www.w3.org/2001/04/xmldsig-more#sha384", &SHA384),
    ("http://www.w3.org/2001/04/xmlenc#sha512", &SHA512),
];

/// Most octets that are read of what was signed.
pub(crate) const LONGEST_SIGNED: usize = 4 * crate::response::LONGEST_RESPONSE;

/// Why a signature is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    /// It is not formed as SAML has it.
    #[error("its signature {0}")]
    Form(&'static str),
    /// An algorithm that is not accepted.
    #[error("its signature uses the algorithm `{0}`, which is not accepted here")]
    Algorithm(String),
    /// The element is not what was signed.
    #[error("it is not what was signed: the digest differs")]
    Digest,
    /// No certificate of the identity provider verifies it.
    #[error("its signature is by none of the identity provider's {0} certificates")]
    Key(usize),
}

/// Whether an element carries a signature.
pub(crate) fn is_signed(element: &Element<'_, '_>) -> bool {
    element.children().any(|child| child.is(SIGNATURE, "Signature"))
}

/// Names of attributes that some reader takes for the identifier of an element.
const IDS: [&str; 3] = ["ID", "Id", "id"];

/// The identifier of an element, if no other element has it.
fn unique_id<'x>(element: &Element<'x, '_>) -> Option<&'x str> {
    let own = element.attribute("ID").filter(|id| !id.is_empty() && id.len() <= 256)?;
    let all = element.xml().elements();
    let named = all.flat_map(|other| other.attributes().collect::<Vec<_>>());
    let count = named.filter(|(name, value)| IDS.contains(name) && *value == own).count();
    (count == 1).then_some(own)
}

/// The element of this name, whose children are these in this order and nothing else.
fn exactly<'x, 't>(
    element: &Element<'x, 't>,
    names: &[&str],
) -> Result<Vec<Element<'x, 't>>, SignatureError> {
    let children: Vec<_> = element.children().collect();
    let fits = children.len() == names.len()
        && children.iter().zip(names).all(|(child, name)| child.is(SIGNATURE, name));
    if fits { Ok(children) } else { Err(SignatureError::Form("is not formed as SAML has it")) }
}

/// The algorithm that an element names, without parameters: none of those accepted has any, and what
/// stands there would be canonicalized before it is known whose it is.
fn bare_algorithm<'x>(element: &Element<'x, '_>) -> Result<&'x str, SignatureError> {
    match element.children().next() {
        None => algorithm(element),
        Some(_) => Err(SignatureError::Form("has parameters of algorithms")),
    }
}

fn algorithm<'x>(element: &Element<'x, '_>) -> Result<&'x str, SignatureError> {
    element.attribute("Algorithm").ok_or(SignatureError::Form("names no algorithm"))
}

fn not_accepted(name: &str) -> SignatureError {
    SignatureError::Algorithm(passavant_proto::others_text::shown(name, 100))
}

/// Exclusive canonicalization, with the prefixes that are treated as inclusive.
fn prefixes(method: &Element<'_, '_>) -> Result<Vec<String>, SignatureError> {
    if algorithm(method)? != EXCLUSIVE {
        return Err(not_accepted(algorithm(method)?));
    }
    let mut children = method.children();
    let Some(inclusive) = children.next() else { return Ok(Vec::new()) };
    let list = inclusive.attribute("PrefixList").filter(|list| list.len() <= 1000);
    let fits = inclusive.is(EXCLUSIVE, "InclusiveNamespaces") && children.next().is_none();
    let list = list.filter(|_| fits).ok_or(SignatureError::Form("has odd transforms"))?;
    Ok(list.split_ascii_whitespace().take(20).map(str::to_owned).collect())
}

/// The canonical octets of an element, without one of its children.
fn canonical(
    xml: &Xml<'_>,
    element: &Element<'_, '_>,
    without: Option<&Element<'_, '_>>,
    prefixes: &[String],
) -> Result<Vec<u8>, SignatureError> {
    let document = xml.document();
    let mut set = NodeSet::tree_without_comments(element.id(), document);
    if let Some(without) = without {
        set = set.subtract(&NodeSet::tree_without_comments(without.id(), document));
    }
    let mut octets = Octets::default();
    let done =
        canonicalize_doc_to(document, C14nMode::Exclusive, Some(&set), prefixes, &mut octets);
    if octets.too_many {
        return Err(SignatureError::Form("covers more than is read here"));
    }
    let octets = Some(octets.held).filter(|octets| done.is_ok() && !octets.is_empty());
    octets.ok_or(SignatureError::Form("covers what has no canonical form"))
}

/// Canonical octets, up to the length that is read: they may be longer than what they are made of.
#[derive(Default)]
struct Octets {
    held: Vec<u8>,
    too_many: bool,
}

impl C14nSink for Octets {
    fn write(&mut self, bytes: &[u8]) {
        self.too_many |= self.held.len() + bytes.len() > LONGEST_SIGNED;
        if !self.too_many {
            self.held.extend_from_slice(bytes);
        }
    }
}

fn base64(element: &Element<'_, '_>) -> Result<Vec<u8>, SignatureError> {
    let text = element.text().ok_or(SignatureError::Form("is no base64"))?;
    let text: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(text).map_err(|_| SignatureError::Form("is no base64"))
}

/// Verifies the signature of an element, by the certificates of the identity provider alone: what a
/// signature says about its own key is not read. Returns the octets that it covers.
pub(crate) fn verify(
    element: &Element<'_, '_>,
    certificates: &[Vec<u8>],
) -> Result<Vec<u8>, SignatureError> {
    let signature = element.only(SIGNATURE, "Signature");
    let signature = signature.ok_or(SignatureError::Form("is not there exactly once"))?;
    let with_key = exactly(&signature, &["SignedInfo", "SignatureValue", "KeyInfo"]);
    let parts = with_key.or_else(|_| exactly(&signature, &["SignedInfo", "SignatureValue"]))?;
    let (info, value) = (parts[0], parts[1]);
    let names = ["CanonicalizationMethod", "SignatureMethod", "Reference"];
    let parts = exactly(&info, &names)?;
    let (canonicalization, method, reference) = (parts[0], parts[1], parts[2]);
    let info_prefixes = prefixes(&canonicalization)?;
    let method = bare_algorithm(&method)?;
    let parameters = SIGNATURES.iter().find(|(name, _)| *name == method);
    let (_, parameters) = parameters.ok_or_else(|| not_accepted(method))?;

    // The reference is to the element that the signature stands in.
    let id = unique_id(element)
        .ok_or(SignatureError::Form("covers an element without an ID of its own"))?;
    if reference.attribute("URI").and_then(|uri| uri.strip_prefix('#')) != Some(id) {
        return Err(SignatureError::Form("does not cover the element that it stands in"));
    }
    let parts = exactly(&reference, &["Transforms", "DigestMethod", "DigestValue"])?;
    let (transforms, digest_method, digest_value) = (parts[0], parts[1], parts[2]);
    let parts = exactly(&transforms, &["Transform", "Transform"])?;
    if bare_algorithm(&parts[0])? != ENVELOPED {
        return Err(SignatureError::Form("has odd transforms"));
    }
    let own_prefixes = prefixes(&parts[1])?;
    let digest_name = bare_algorithm(&digest_method)?;
    let digest = DIGESTS.iter().find(|(name, _)| *name == digest_name);
    let (_, digest) = digest.ok_or_else(|| not_accepted(digest_name))?;

    let (value, digest_value) = (base64(&value)?, base64(&digest_value)?);
    let signed = canonical(element.xml(), &info, None, &info_prefixes)?;
    let keys: Vec<_> = certificates.iter().filter_map(|der| public_key(der)).collect();
    let verifies =
        |key: &Vec<u8>| UnparsedPublicKey::new(*parameters, key).verify(&signed, &value).is_ok();
    if !keys.iter().any(verifies) {
        return Err(SignatureError::Key(certificates.len()));
    }
    let octets = canonical(element.xml(), element, Some(&signature), &own_prefixes)?;
    if digest::digest(digest, &octets).as_ref() != digest_value {
        return Err(SignatureError::Digest);
    }
    Ok(octets)
}

/// The RSA key of a certificate. Who issued it and until when it is good does not count: an identity
/// provider's certificates are what an administrator took from its metadata (Metadata 2.4.1.1).
pub(crate) fn public_key(der: &[u8]) -> Option<Vec<u8>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    let info = certificate.public_key();
    let rsa = info.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION && rest.is_empty();
    let long = matches!(info.parsed(), Ok(PublicKey::RSA(key)) if key.key_size() >= 2048);
    (rsa && long).then(|| info.subject_public_key.data.to_vec())
}

/// Distinct certificates, in their order.
pub(crate) fn distinct(certificates: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut seen = HashSet::new();
    certificates.into_iter().filter(|der| seen.insert(der.clone())).collect()
}
