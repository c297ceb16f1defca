//! The Identity Assertion JWT Authorization Grant (ID-JAG draft section 3): what the IdP signs and
//! a RAS verifies.

use crate::{
    formerly::current,
    identifier::{Issuer, Resource},
    jose::claims::{ClaimError, check_times},
    jose::jwk::{KeySet, SigningKey},
    jose::jws::{self, JwtError, Unverified},
    oauth::scope::Scopes,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Header `typ` of an ID-JAG (ID-JAG draft section 3).
pub const TYPE: &str = "oauth-id-jag+jwt";
/// Lifetime of the ID-JAGs we issue, in seconds.
pub const LIFETIME: i64 = 120;
/// Longest lifetime of an ID-JAG that we accept, in seconds.
pub const LONGEST_LIFETIME: i64 = 300;

/// One value as a string, several as an array: the two spellings of `resource` (ID-JAG draft
/// section 3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// A lone string.
    One(String),
    /// An array of strings.
    Many(Vec<String>),
}

impl OneOrMany {
    /// `None` for no value, a string for one, an array for more.
    pub fn of(values: &[Resource]) -> Option<Self> {
        match values {
            [] => None,
            [one] => Some(Self::One(one.as_str().to_owned())),
            many => Some(Self::Many(many.iter().map(|r| r.as_str().to_owned()).collect())),
        }
    }
}

/// Proof-of-possession key of a token (RFC 7800; `jkt` of RFC 9449 section 6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// RFC 7638 thumbprint of the key.
    pub jkt: String,
}

/// The claims of an ID-JAG, in the shape that is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // each field is the claim of its name in section 3.1 of the ID-JAG draft
pub struct IdJagClaims {
    pub iss: Issuer,
    pub sub: String,
    pub aud: Issuer,
    /// The client's id **at the RAS**.
    pub client_id: String,
    pub jti: String,
    pub exp: Timestamp,
    pub iat: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<OneOrMany>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud_tenant: Option<String>,
    /// The audience's own name for the person (ID-JAG draft, section 3.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud_sub: Option<String>,
    /// The person as another protocol names them (ID-JAG draft, section 3.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amr: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
}

impl IdJagClaims {
    /// The signed ID-JAG.
    pub fn sign(&self, key: &SigningKey) -> String {
        jws::sign(key, TYPE, self)
    }
}

/// An ID-JAG that was not verified. Only its issuer and `kid` can be read.
#[derive(Debug)]
pub struct UnverifiedIdJag<'a>(Unverified<'a>);

/// A verified ID-JAG: signature, `typ`, issuer, audience, client and time have been checked.
/// Whether it was used before has not; the store checks that when it records the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdJag {
    issuer: Issuer,
    subject: String,
    jti: String,
    issued: Timestamp,
    expires: Timestamp,
    resources: Vec<Resource>,
    scopes: Option<Scopes>,
    email: Option<String>,
    auth_time: Option<Timestamp>,
    acr: Option<String>,
    actor: Option<String>,
    key_thumbprint: Option<String>,
}

/// The values that an ID-JAG is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The trusted IdP that was found by `iss`.
    pub issuer: &'a Issuer,
    /// The required value of `tenant`; `None` for a single-tenant issuer, where it must be absent.
    pub tenant: Option<&'a str>,
    /// The required value of `aud_tenant`: our own tenant as the issuer names it. `None` if it must
    /// be absent.
    pub audience_tenant: Option<&'a str>,
    /// This RAS.
    pub audience: &'a Issuer,
    /// The authenticated client, by its id at this RAS.
    pub client: &'a str,
}

impl<'a> UnverifiedIdJag<'a> {
    /// Decodes the assertion without trusting it, and checks `typ` (ID-JAG draft section 4.4.1), so
    /// that a JWT of another kind is rejected before keys are looked up.
    pub fn parse(assertion: &'a str) -> Result<Self, JwtError> {
        let token = Unverified::parse(assertion)?;
        token.require_type(TYPE)?;
        token.claims.required_str("iss")?;
        Ok(Self(token))
    }

    /// The issuer it claims, for finding the trusted IdP.
    pub fn issuer(&self) -> &str {
        // `parse` has checked that it is present and a string.
        self.0.claims.value("iss").and_then(Value::as_str).unwrap_or_default()
    }

    /// The `kid` of its header, for checking whether the cached keys are recent enough.
    pub fn kid(&self) -> Option<&str> {
        self.0.kid()
    }

    /// Applies section 4.4.1 of the ID-JAG draft. Not checked here: whether the `jti` was used
    /// before, and whether resources and scopes are ours ([`crate::xaa::jwt_bearer::authorize`]).
    pub fn verify(
        self,
        keys: &KeySet,
        expected: Expected<'_>,
        now: Timestamp,
    ) -> Result<IdJag, JwtError> {
        let claims = self.0.verify_signature(keys)?;
        if claims.required_str("iss")? != expected.issuer.as_str() {
            return Err(JwtError::Issuer);
        }
        if claims.required_single_audience()? != expected.audience.as_str() {
            return Err(JwtError::Audience);
        }
        if claims.required_str("client_id")? != expected.client {
            return Err(JwtError::Client);
        }
        if claims.optional_str("tenant")? != expected.tenant {
            return Err(JwtError::Binding("tenant"));
        }
        if claims.optional_str("aud_tenant")? != expected.audience_tenant {
            return Err(JwtError::Binding("aud_tenant"));
        }
        let actor = match claims.value("act") {
            None => None,
            Some(Value::Object(actor)) => {
                let subject = actor.get("sub").and_then(Value::as_str);
                Some(subject.ok_or(ClaimError::WrongType("act"))?.to_owned())
            }
            Some(_) => return Err(ClaimError::WrongType("act").into()),
        };
        let expires = claims.required_time("exp")?;
        let (issued, not_before) = (claims.required_time("iat")?, claims.optional_time("nbf")?);
        check_times(issued, not_before, expires, LONGEST_LIFETIME, now)?;
        if claims.value("authorization_details").is_some() {
            // Not supported here; ignoring it could grant more than it says.
            return Err(ClaimError::WrongType("authorization_details").into());
        }
        if let Some(sub_id) = claims.value("sub_id") {
            let format = sub_id.get("format").and_then(Value::as_str);
            format.ok_or(ClaimError::WrongType("sub_id"))?;
        }
        // An email address that its issuer marks as unverified is ignored.
        let unverified = match claims.value("email_verified") {
            None | Some(Value::Bool(true)) => false,
            Some(Value::Bool(false)) => true,
            Some(_) => return Err(ClaimError::WrongType("email_verified").into()),
        };
        let resources = claims.optional_strings("resource")?.unwrap_or_default();
        let resources = resources
            .into_iter()
            .map(|text| Resource::parse(text).map_err(|_| ClaimError::WrongType("resource")))
            .collect::<Result<Vec<_>, _>>()?;
        let scopes = claims
            .optional_str("scope")?
            .map(|text| Scopes::parse(text).ok_or(ClaimError::WrongType("scope")))
            .transpose()?;
        let key_thumbprint = claims
            .value("cnf")
            .map(|cnf| {
                let jkt = cnf.get("jkt").and_then(Value::as_str);
                jkt.map(str::to_owned).ok_or(ClaimError::WrongType("cnf"))
            })
            .transpose()?;
        Ok(IdJag {
            issuer: expected.issuer.clone(),
            subject: claims.required_id("sub", 255)?.to_owned(),
            jti: claims.required_id("jti", 255)?.to_owned(),
            issued,
            expires,
            resources,
            scopes,
            email: claims.optional_str("email")?.filter(|_| !unverified).map(str::to_owned),
            auth_time: claims.optional_time("auth_time")?,
            acr: claims.optional_str("acr")?.map(current).map(str::to_owned),
            actor,
            key_thumbprint,
        })
    }
}

impl IdJag {
    /// The trusted IdP that signed it.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }
    /// `iat`.
    pub fn issued_at(&self) -> Timestamp {
        self.issued
    }

    /// `sub`: the person, unique for this issuer only (ID-JAG draft section 3.1).
    pub fn subject(&self) -> &str {
        &self.subject
    }
    /// `jti`, unique for this issuer only.
    pub fn jti(&self) -> &str {
        &self.jti
    }
    /// When its use may be forgotten: `exp` plus the skew that verification allows.
    pub fn forget_after(&self) -> Timestamp {
        self.expires.plus(crate::time::SKEW)
    }
    /// The resources it is for, as written; empty if the claim is absent.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }
    /// Its scopes; `None` if the claim is absent.
    pub fn scopes(&self) -> Option<&Scopes> {
        self.scopes.as_ref()
    }
    /// `email`, if released to this audience.
    pub fn email(&self) -> Option<&str> {
        self.email.as_deref()
    }
    /// `auth_time`, if released to this audience.
    pub fn auth_time(&self) -> Option<Timestamp> {
        self.auth_time
    }
    /// `acr`, if released to this audience.
    pub fn acr(&self) -> Option<&str> {
        self.acr.as_deref()
    }
    /// `act.sub`: who acts for the person (RFC 8693, 4.1). Only recorded; it grants nothing.
    pub fn actor(&self) -> Option<&str> {
        self.actor.as_deref()
    }
    /// `cnf.jkt`: the DPoP key it is bound to.
    pub fn key_thumbprint(&self) -> Option<&str> {
        self.key_thumbprint.as_deref()
    }
}
