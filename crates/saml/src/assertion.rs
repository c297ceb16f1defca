//! An assertion, read from the octets that its signature covers.

use crate::{
    instant,
    response::{Expected, ResponseError},
    xml::{ASSERTION, Element},
};
use passavant_proto::{
    identifier::SubjectIssuer,
    others_text::{is_shown, shown},
    saml::{FORMAT_TRANSIENT, NameId},
    time::{SKEW, Timestamp},
};

/// How long an assertion may be good for: what is remembered against replays has an end. Entra's are
/// good for 70 minutes.
const LONGEST_LIFE: i64 = 2 * 3600;
/// Longest value that is kept, in bytes.
const LONGEST: usize = 255;
/// Maximum number of attributes and of values of one.
const MOST: usize = 1000;
/// Bearer confirmation (Profiles 3.3).
const BEARER: &str = "urn:oasis:names:tc:SAML:2.0:cm:bearer";

/// What an identity provider says about a person. Made by [`crate::verify`] and
/// [`crate::verify_assertion`] alone: the signature was verified, and it is for us, now.
#[derive(Clone, Debug)]
pub struct Assertion {
    pub(crate) id: String,
    pub(crate) issuer: SubjectIssuer,
    pub(crate) audience: String,
    pub(crate) name_id: Option<NameId>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) authn_instant: Timestamp,
    pub(crate) class: Option<String>,
    pub(crate) session_index: Option<String>,
    pub(crate) session_ends: Option<Timestamp>,
    pub(crate) ends: Timestamp,
}

/// An attribute of a person.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// `Name`.
    pub name: String,
    /// The values that are texts.
    pub values: Vec<String>,
}

impl Assertion {
    /// `ID`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The entity ID of who made it.
    pub fn issuer(&self) -> &SubjectIssuer {
        &self.issuer
    }

    /// Whom it is for: the service provider that it was verified for.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// The name identifier, if it is one that can be kept: not a transient one.
    pub fn name_id(&self) -> Option<&NameId> {
        self.name_id.as_ref().filter(|name_id| name_id.format() != FORMAT_TRANSIENT)
    }

    /// The values of an attribute, of all elements that have its name.
    pub fn values(&self, name: &str) -> Option<Vec<&str>> {
        let all: Vec<&Attribute> =
            self.attributes.iter().filter(|held| held.name == name).collect();
        let values = all.iter().flat_map(|held| held.values.iter().map(String::as_str));
        (!all.is_empty()).then(|| values.collect())
    }

    /// When the person signed in there.
    pub fn authn_instant(&self) -> Timestamp {
        self.authn_instant
    }

    /// The authentication context class (Authentication Context 3.4).
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }

    /// The session there.
    pub fn session_index(&self) -> Option<&str> {
        self.session_index.as_deref()
    }

    /// When the session there ends.
    pub fn session_ends(&self) -> Option<Timestamp> {
        self.session_ends
    }

    /// When it is not good any more: a copy of it has to be recognized until then.
    pub fn ends(&self) -> Timestamp {
        self.ends
    }
}

fn shape(what: &'static str) -> ResponseError {
    ResponseError::Form(what)
}

/// A text that can be stored and compared as it is: nothing is trimmed from an identifier.
fn plain(text: &str) -> Option<String> {
    let fits = (1..=LONGEST).contains(&text.len()) && text.trim() == text;
    (fits && text.chars().all(is_shown)).then(|| text.to_owned())
}

/// An attribute of an element that is a time.
fn time_of(element: &Element<'_, '_>, name: &str) -> Result<Option<Timestamp>, ResponseError> {
    let said = element.attribute(name);
    said.map(|text| instant::read(text).ok_or_else(|| shape("has a time that is not in UTC")))
        .transpose()
}

/// Checks a window of time, of which either end may be open.
fn check_window(
    (not_before, ends): (Option<Timestamp>, Option<Timestamp>),
    now: Timestamp,
) -> Result<(), ResponseError> {
    if not_before.is_some_and(|at| at.since(now) > SKEW) {
        return Err(ResponseError::Time("is not good yet: compare the clocks"));
    }
    if ends.is_some_and(|at| now.since(at) >= SKEW) {
        return Err(ResponseError::Time("is not good any more"));
    }
    Ok(())
}

/// Whether an issuer element names this identity provider.
pub(crate) fn check_issuer(
    issuer: &Element<'_, '_>,
    expected: &Expected<'_>,
) -> Result<(), ResponseError> {
    let named = issuer.text().ok_or_else(|| shape("has an odd issuer"))?;
    if named == expected.issuer.as_str() {
        return Ok(());
    }
    Err(ResponseError::Issuer(shown(&named, 200)))
}

/// Reads an assertion, and checks that it is for us, now.
pub(crate) fn read(
    assertion: &Element<'_, '_>,
    expected: &Expected<'_>,
) -> Result<Assertion, ResponseError> {
    let now = expected.now;
    if !assertion.is(ASSERTION, "Assertion") || assertion.attribute("Version") != Some("2.0") {
        return Err(shape("has no assertion of SAML 2.0"));
    }
    let id = assertion.attribute("ID").and_then(plain);
    let id = id.ok_or_else(|| shape("has an assertion without a usable ID"))?;
    let issued = time_of(assertion, "IssueInstant")?;
    let issued = issued.ok_or_else(|| shape("has an assertion without IssueInstant"))?;
    check_window((Some(issued), None), now)?;
    let one =
        |name: &'static str, missing| assertion.only(ASSERTION, name).ok_or_else(|| shape(missing));
    check_issuer(&one("Issuer", "has an assertion without exactly one issuer")?, expected)?;
    let subject = one("Subject", "has an assertion without exactly one subject")?;
    let name_id = name_id_of(&subject)?;
    let confirmed = confirmed_until(&subject, expected)?;
    let conditions = one("Conditions", "has an assertion without exactly one set of conditions")?;
    let ends = check_conditions(&conditions, expected)?.min(confirmed);
    if ends.since(now) > LONGEST_LIFE {
        return Err(ResponseError::Time("is good for more than two hours"));
    }
    let statement = one("AuthnStatement", "does not say exactly once how the person signed in")?;
    let authn_instant = time_of(&statement, "AuthnInstant")?;
    let authn_instant =
        authn_instant.ok_or_else(|| shape("does not say when the person signed in"))?;
    check_window((Some(authn_instant), None), now)?;
    let session_ends = time_of(&statement, "SessionNotOnOrAfter")?;
    if session_ends.is_some_and(|at| at <= now) {
        return Err(ResponseError::Time("is about a session that has ended"));
    }
    let context = statement.only(ASSERTION, "AuthnContext");
    let context = context.ok_or_else(|| shape("does not say how the person signed in"))?;
    let class = context.only(ASSERTION, "AuthnContextClassRef").and_then(|class| class.text());
    Ok(Assertion {
        id,
        issuer: expected.issuer.clone(),
        audience: expected.audience.to_owned(),
        name_id,
        attributes: attributes_of(assertion)?,
        // By a clock that is ahead of ours; it was held against ours above.
        authn_instant: authn_instant.min(now),
        class: class.and_then(|class| plain(class.trim())),
        session_index: statement.attribute("SessionIndex").and_then(plain),
        session_ends,
        ends,
    })
}

fn name_id_of(subject: &Element<'_, '_>) -> Result<Option<NameId>, ResponseError> {
    let known = |child: &Element<'_, '_>| {
        ["NameID", "SubjectConfirmation"].iter().any(|name| child.is(ASSERTION, name))
    };
    if subject.children().any(|child| child.is(ASSERTION, "EncryptedID")) {
        return Err(ResponseError::Encrypted);
    }
    if !subject.children().all(|child| known(&child)) {
        return Err(shape("has a subject that is not named by a name identifier"));
    }
    let name_id = match subject.all(ASSERTION, "NameID").as_slice() {
        [] => return Ok(None),
        [one] => *one,
        _ => return Err(shape("has several name identifiers")),
    };
    let value = name_id.text().as_deref().and_then(plain);
    let value = value.ok_or_else(|| {
        shape("has a name identifier that is empty, longer than 255 bytes, padded, or not all printable")
    })?;
    let qualifier = |name: &str| {
        let said = name_id.attribute(name);
        let kept =
            |text| plain(text).ok_or_else(|| shape("has a name identifier with odd attributes"));
        said.map(kept).transpose()
    };
    Ok(Some(NameId {
        value,
        format: qualifier("Format")?,
        name_qualifier: qualifier("NameQualifier")?,
        sp_name_qualifier: qualifier("SPNameQualifier")?,
        sp_provided_id: qualifier("SPProvidedID")?,
    }))
}

/// Until when the bearer of the assertion is confirmed as its subject, by us and for this request
/// (Profiles 4.1.4.2).
fn confirmed_until(
    subject: &Element<'_, '_>,
    expected: &Expected<'_>,
) -> Result<Timestamp, ResponseError> {
    let mut why = shape("has no bearer confirmation");
    for confirmation in subject.all(ASSERTION, "SubjectConfirmation") {
        if confirmation.attribute("Method") != Some(BEARER) {
            continue;
        }
        match bearer(&confirmation, expected) {
            Ok(until) => return Ok(until),
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn bearer(
    confirmation: &Element<'_, '_>,
    expected: &Expected<'_>,
) -> Result<Timestamp, ResponseError> {
    let data = confirmation.only(ASSERTION, "SubjectConfirmationData");
    let data = data.ok_or_else(|| shape("has a bearer confirmation without its data"))?;
    let recipient = data.attribute("Recipient");
    if recipient.is_none() || expected.recipient.is_some_and(|ours| recipient != Some(ours)) {
        return Err(ResponseError::Recipient(shown(recipient.unwrap_or("nobody"), 200)));
    }
    if expected.request.is_some_and(|ours| data.attribute("InResponseTo") != Some(ours)) {
        return Err(ResponseError::Unasked);
    }
    let until = time_of(&data, "NotOnOrAfter")?;
    let until = until.ok_or_else(|| shape("has a bearer confirmation without an end"))?;
    if data.attribute("NotBefore").is_some() {
        return Err(shape("has a bearer confirmation with a beginning"));
    }
    check_window((None, Some(until)), expected.now)?;
    Ok(until)
}

/// Checks the conditions, all of which have to be understood (Core 2.5.1.1). Returns their end.
fn check_conditions(
    conditions: &Element<'_, '_>,
    expected: &Expected<'_>,
) -> Result<Timestamp, ResponseError> {
    let ends = time_of(conditions, "NotOnOrAfter")?;
    let ends = ends.ok_or_else(|| shape("has conditions without an end"))?;
    check_window((time_of(conditions, "NotBefore")?, Some(ends)), expected.now)?;
    let mut restricted = false;
    for condition in conditions.children() {
        if condition.is(ASSERTION, "OneTimeUse") {
            // No assertion is used twice.
            continue;
        }
        if condition.is(ASSERTION, "ProxyRestriction") {
            // What is issued here rests on it.
            return Err(ResponseError::Condition("ProxyRestriction".to_owned()));
        }
        if !condition.is(ASSERTION, "AudienceRestriction") {
            return Err(ResponseError::Condition(shown(condition.name(), 60)));
        }
        let audiences: Vec<String> = condition
            .all(ASSERTION, "Audience")
            .iter()
            .map(|audience| audience.text().unwrap_or_default())
            .collect();
        if !audiences.iter().any(|audience| audience == expected.audience) {
            return Err(ResponseError::Audience(shown(&audiences.join(", "), 200)));
        }
        restricted = true;
    }
    if restricted {
        Ok(ends)
    } else {
        Err(ResponseError::Audience("nobody in particular".to_owned()))
    }
}

fn attributes_of(assertion: &Element<'_, '_>) -> Result<Vec<Attribute>, ResponseError> {
    let mut attributes: Vec<Attribute> = Vec::new();
    for statement in assertion.all(ASSERTION, "AttributeStatement") {
        for attribute in statement.children() {
            if attribute.is(ASSERTION, "EncryptedAttribute") {
                return Err(ResponseError::Encrypted);
            }
            if !attribute.is(ASSERTION, "Attribute") {
                return Err(shape("has something else among the attributes"));
            }
            let name = attribute.attribute("Name").and_then(plain);
            let name = name.ok_or_else(|| shape("has an attribute without a usable name"))?;
            let values = attribute.all(ASSERTION, "AttributeValue");
            if values.len() > MOST || attributes.len() >= MOST {
                return Err(shape("has more than 1,000 attributes, or values of one"));
            }
            // A value that is a structure is none of those that are asked for.
            let values = values.iter().filter_map(Element::text).collect();
            attributes.push(Attribute { name, values });
        }
    }
    Ok(attributes)
}
