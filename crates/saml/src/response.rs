//! The response to our request, by the POST binding (Bindings 3.5): its form, its signatures, and the
//! assertion in it.

use crate::{
    assertion::{self, Assertion, check_issuer},
    instant,
    signature::{self, LONGEST_SIGNED, SignatureError, is_signed},
    xml::{ASSERTION, Besides, Element, PROTOCOL, SIGNATURE, Xml},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use passavant_proto::{
    identifier::SubjectIssuer,
    others_text::shown,
    time::{SKEW, Timestamp},
};

/// Longest response that is read, in bytes, before base64.
pub const LONGEST_RESPONSE: usize = 128 * 1024;

const SUCCESS: &str = "urn:oasis:names:tc:SAML:2.0:status:Success";

/// What a response has to be.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The identity provider's entity ID.
    pub issuer: &'a SubjectIssuer,
    /// Its certificates, in DER.
    pub certificates: &'a [Vec<u8>],
    /// Whom it has to be for: the service provider's entity ID.
    pub audience: &'a str,
    /// The assertion consumer service that it has to be sent to; `None`: it was sent to somebody else,
    /// who passes it on.
    pub recipient: Option<&'a str>,
    /// The ID of the request that it has to answer; `None`: somebody else's request.
    pub request: Option<&'a str>,
    /// The time.
    pub now: Timestamp,
}

/// Why a response is not accepted. Texts of the response are shown in part, and never values of
/// people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// It is no base64, or no XML that can be read here.
    #[error("the response {0}")]
    Xml(String),
    /// The identity provider, or the person at it, said no: its status codes.
    #[error("the identity provider answered {0}")]
    Status(String),
    /// Something in it is encrypted.
    #[error(
        "the response has something encrypted in it: no certificate for encryption is offered here, so that has to be \
         switched off at the identity provider"
    )]
    Encrypted,
    /// It is not formed as the profile has it.
    #[error("the response {0}")]
    Form(&'static str),
    /// Nothing in it is signed.
    #[error("neither the response nor its assertion is signed")]
    Unsigned,
    /// A signature is not accepted.
    #[error("{0}")]
    Signature(String),
    /// Somebody else made it.
    #[error("it was made by `{0}`, not by the identity provider of this upstream")]
    Issuer(String),
    /// It was sent to another address.
    #[error("it is for the address `{0}`, not for this one")]
    Recipient(String),
    /// It answers no request of this sign-in.
    #[error("it does not answer the request of this sign-in")]
    Unasked,
    /// It is for somebody else.
    #[error("it is for `{0}`, not for this service provider")]
    Audience(String),
    /// A condition that is not known, or cannot be kept.
    #[error("it is under a condition that cannot be kept here: `{0}`")]
    Condition(String),
    /// It is not good now.
    #[error("it {0}")]
    Time(&'static str),
}

impl From<SignatureError> for ResponseError {
    fn from(error: SignatureError) -> Self {
        Self::Signature(error.to_string())
    }
}

fn form(what: &'static str) -> ResponseError {
    ResponseError::Form(what)
}

/// Base64, with the line breaks that some write into it.
fn decoded(encoded: &str) -> Result<String, ResponseError> {
    let unusable = |what: &str| ResponseError::Xml(what.to_owned());
    if encoded.len() > LONGEST_RESPONSE * 3 / 2 {
        return Err(unusable("is too long"));
    }
    let encoded: String = encoded.split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(encoded).map_err(|_| unusable("is no base64"))?;
    String::from_utf8(bytes).map_err(|_| unusable("is no UTF-8"))
}

/// Verifies the response of a form: `SAMLResponse`, as it was posted.
pub fn verify(encoded: &str, expected: &Expected<'_>) -> Result<Assertion, ResponseError> {
    let text = decoded(encoded)?;
    let xml = Xml::read(&text, LONGEST_RESPONSE, Besides::Nothing).map_err(ResponseError::Xml)?;
    let response = xml.root();
    check_structure(&xml)?;
    check_response(&response, expected)?;
    let assertion = response.only(ASSERTION, "Assertion");
    let assertion = assertion.ok_or_else(|| form("does not have exactly one assertion"))?;

    // A signature that is there has to be good, whichever is used.
    let whole = is_signed(&response).then(|| signature::verify(&response, expected.certificates));
    let whole = whole.transpose()?;
    let part = is_signed(&assertion).then(|| signature::verify(&assertion, expected.certificates));
    let part = part.transpose()?;
    // From here on the octets that a signature covers are all there is.
    if let Some(octets) = part {
        return read_signed(octets, |signed| assertion::read(signed, expected));
    }
    let octets = whole.ok_or(ResponseError::Unsigned)?;
    read_signed(octets, |signed| {
        check_response(signed, expected)?;
        // A signed response names its destination (Bindings 3.5.5.2).
        if signed.attribute("Destination").is_none() {
            return Err(form("is signed, and has no destination"));
        }
        let assertion = signed.only(ASSERTION, "Assertion");
        let assertion = assertion.ok_or_else(|| form("does not have exactly one assertion"))?;
        assertion::read(&assertion, expected)
    })
}

/// Who an assertion that stands alone says that it is from, before anything of it is verified: good for
/// finding the identity provider, and for nothing else.
pub fn claimed_issuer(text: &str) -> Result<String, ResponseError> {
    let xml = Xml::read(text, LONGEST_RESPONSE, Besides::Nothing).map_err(ResponseError::Xml)?;
    let issuer = xml.root().only(ASSERTION, "Issuer").and_then(|issuer| issuer.text());
    issuer.ok_or_else(|| form("is not an assertion of SAML 2.0 with one issuer"))
}

/// Verifies an assertion that stands alone, as a security token does: it carries its own signature.
pub fn verify_assertion(text: &str, expected: &Expected<'_>) -> Result<Assertion, ResponseError> {
    let xml = Xml::read(text, LONGEST_RESPONSE, Besides::Nothing).map_err(ResponseError::Xml)?;
    let assertion = xml.root();
    if !assertion.is(ASSERTION, "Assertion") {
        return Err(form("is not an assertion of SAML 2.0"));
    }
    check_signatures(&xml)?;
    if !is_signed(&assertion) {
        return Err(ResponseError::Unsigned);
    }
    let octets = signature::verify(&assertion, expected.certificates)?;
    read_signed(octets, |signed| assertion::read(signed, expected))
}

/// Whether a document carries a signature of its own by one of these keys, over all of it.
pub fn verifies(text: &str, certificates: &[Vec<u8>]) -> bool {
    let Ok(xml) = Xml::read(text, LONGEST_RESPONSE, Besides::Nothing) else { return false };
    signature::verify(&xml.root(), certificates).is_ok()
}

/// Reads what was signed, from the octets that the signature covers.
fn read_signed(
    octets: Vec<u8>,
    read: impl FnOnce(&Element<'_, '_>) -> Result<Assertion, ResponseError>,
) -> Result<Assertion, ResponseError> {
    let text = String::from_utf8(octets).map_err(|_| form("is no UTF-8 where it is signed"))?;
    let xml = Xml::read(&text, LONGEST_SIGNED, Besides::Nothing).map_err(ResponseError::Xml)?;
    read(&xml.root())
}

/// Signatures stand in a response or an assertion, one in each at most, and nowhere else.
fn check_signatures(xml: &Xml<'_>) -> Result<(), ResponseError> {
    let mut places = 0;
    let mut all = 0;
    for element in xml.elements() {
        all += usize::from(element.is(SIGNATURE, "Signature"));
        let place = element.is(PROTOCOL, "Response") || element.is(ASSERTION, "Assertion");
        if place {
            let here = element.all(SIGNATURE, "Signature").len();
            if here > 1 {
                return Err(form("has several signatures in one place"));
            }
            places += here;
        }
    }
    if all == places { Ok(()) } else { Err(form("has a signature in an odd place")) }
}

/// There is one of everything, wherever it might stand: what is signed cannot be moved to where it is
/// not looked for.
fn check_structure(xml: &Xml<'_>) -> Result<(), ResponseError> {
    let response = xml.root();
    if !response.is(PROTOCOL, "Response") {
        return Err(form("is not a response of SAML 2.0"));
    }
    let encrypted = ["EncryptedAssertion", "EncryptedID", "EncryptedAttribute", "EncryptedData"];
    let (mut responses, mut assertions) = (0, 0);
    for element in xml.elements() {
        // By their names alone: another namespace is another reader's chance.
        match element.name() {
            "Response" => responses += 1,
            "Assertion" => assertions += 1,
            name if encrypted.contains(&name) => return Err(ResponseError::Encrypted),
            _ => {}
        }
    }
    if responses > 1 || assertions > 1 {
        return Err(form("has several responses or assertions in it"));
    }
    check_signatures(xml)?;
    let known = [
        (ASSERTION, "Issuer"),
        (SIGNATURE, "Signature"),
        (PROTOCOL, "Extensions"),
        (PROTOCOL, "Status"),
        (ASSERTION, "Assertion"),
    ];
    let is_known = |child: &Element<'_, '_>| known.iter().any(|(ns, name)| child.is(ns, name));
    if response.children().all(|child| is_known(&child)) {
        return Ok(());
    }
    Err(form("has something in it that is no part of a response"))
}

/// What a response says of itself. Where only the assertion is signed this can refuse, and no more.
fn check_response(
    response: &Element<'_, '_>,
    expected: &Expected<'_>,
) -> Result<(), ResponseError> {
    if !response.is(PROTOCOL, "Response") || response.attribute("Version") != Some("2.0") {
        return Err(form("is not a response of SAML 2.0"));
    }
    if expected.request.is_some_and(|ours| response.attribute("InResponseTo") != Some(ours)) {
        return Err(ResponseError::Unasked);
    }
    let destination = response.attribute("Destination");
    if let (Some(there), Some(ours)) = (destination, expected.recipient)
        && there != ours
    {
        return Err(ResponseError::Recipient(shown(there, 200)));
    }
    match response.all(ASSERTION, "Issuer").as_slice() {
        [] => {}
        [issuer] => check_issuer(issuer, expected)?,
        _ => return Err(form("has several issuers")),
    }
    let issued = response.attribute("IssueInstant").and_then(instant::read);
    let issued = issued.ok_or_else(|| form("has no IssueInstant in UTC"))?;
    if issued.since(expected.now) > SKEW {
        return Err(ResponseError::Time("is not good yet: compare the clocks"));
    }
    let status = response.only(PROTOCOL, "Status");
    let status = status.ok_or_else(|| form("does not have exactly one status"))?;
    let code = status.only(PROTOCOL, "StatusCode");
    let code = code.ok_or_else(|| form("does not have exactly one status code"))?;
    let value = code.attribute("Value").unwrap_or_default();
    if value == SUCCESS {
        return Ok(());
    }
    // Codes of others are read by their last part.
    let short = |value: &str| shown(value.rsplit(':').next().unwrap_or_default(), 60);
    let second = code.only(PROTOCOL, "StatusCode");
    let second = second.and_then(|code| code.attribute("Value")).map(short);
    let codes: Vec<String> = [Some(short(value)), second].into_iter().flatten().collect();
    Err(ResponseError::Status(codes.join(", ")))
}
