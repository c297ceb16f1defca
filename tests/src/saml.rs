//! A SAML identity provider: it says what a test tells it to say, and signs it.

use crate::{
    forge::rsa_der,
    outsider::Browser,
    world::{AGENT, Ask, Reply, World},
};
use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::{AsDer, Pkcs8V1Der},
    rsa::KeySize,
    signature::RsaKeyPair,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::DeflateDecoder;
use passavant_admin::types::Upstreams;
use passavant_proto::{
    jose::jwk::{Algorithm, SigningKey},
    time::Timestamp,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{collections::BTreeMap, io::Read, sync::LazyLock};

/// Where browsers are sent.
pub const SSO: &str = "https://sso.acme.example/saml";
/// Its entity ID: as Okta writes them, a URL of http at which nothing is.
pub const ENTITY: &str = "http://www.okta.example/exk1";

const ASSERTION: &str = "urn:oasis:names:tc:SAML:2.0:assertion";
const PROTOCOL: &str = "urn:oasis:names:tc:SAML:2.0:protocol";
const SIGNATURE: &str = "http://www.w3.org/2000/09/xmldsig#";

/// One that was made.
pub struct FakeSaml {
    /// Its entity ID.
    pub entity_id: String,
    key: SigningKey,
    certificate: Vec<u8>,
}

/// A certificate for a key, as an identity provider publishes it.
pub fn certificate(der: &[u8]) -> Vec<u8> {
    let der = der.to_vec();
    let key = rcgen::KeyPair::try_from(der.as_slice()).unwrap();
    rcgen::CertificateParams::default().self_signed(&key).unwrap().der().to_vec()
}

/// A request of ours, as it arrives there.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its ID.
    pub id: String,
    /// `RelayState`.
    pub relay_state: String,
    /// The document.
    pub xml: String,
    /// The parameters, by redirect.
    pub query: BTreeMap<String, String>,
    /// The URL, by redirect.
    pub url: String,
}

/// What an assertion says. Values are written as they are: a test may write markup.
#[derive(Clone, Debug)]
pub struct Says {
    pub id: String,
    pub issuer: String,
    pub name_id: String,
    pub name_id_attributes: String,
    pub attributes: Vec<(String, Vec<String>)>,
    pub audience: String,
    pub recipient: String,
    pub in_response_to: String,
    pub at: Timestamp,
    pub ends: Timestamp,
    pub authn_instant: Timestamp,
    pub session_ends: Option<Timestamp>,
    pub class: String,
    pub conditions: String,
    pub status: String,
}

fn time(at: Timestamp) -> String {
    let days = at.0.div_euclid(86_400);
    let rest = at.0.rem_euclid(86_400);
    // From days to a date: Howard Hinnant's `civil_from_days`.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

impl FakeSaml {
    /// One with the key of all tests, because making another takes a while.
    pub fn new(entity_id: &str) -> Self {
        Self::with_key(entity_id, &rsa_der())
    }

    /// One with another key.
    pub fn other(entity_id: &str) -> Self {
        static OTHER: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref().to_vec()
        });
        Self::with_key(entity_id, &OTHER)
    }

    fn with_key(entity_id: &str, der: &[u8]) -> Self {
        let key = SigningKey::from_pkcs8(Algorithm::RS256, der).unwrap();
        Self { entity_id: entity_id.to_owned(), key, certificate: certificate(der) }
    }

    /// Its metadata, with what a test wants beside the certificate.
    pub fn metadata(&self, wants_signed: bool, services: &str) -> String {
        let certificate = STANDARD.encode(&self.certificate);
        format!(
            r#"<?xml version="1.0"?>
<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{}">
 <md:IDPSSODescriptor WantAuthnRequestsSigned="{wants_signed}" protocolSupportEnumeration="{PROTOCOL}">
  <md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="{SIGNATURE}"><ds:X509Data><ds:X509Certificate>
{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>
  {services}
 </md:IDPSSODescriptor>
</md:EntityDescriptor>"#,
            self.entity_id
        )
    }

    /// Its metadata, by redirect.
    pub fn by_redirect(&self) -> String {
        let service = format!(
            r#"<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="{SSO}"/>"#
        );
        self.metadata(false, &service)
    }

    /// What it says of Erin, in answer to a request.
    pub fn says(&self, world: &World, upstream: &str, asked: &Asked) -> Says {
        let now = world.now();
        let attribute = |name: &str, value: &str| (name.to_owned(), vec![value.to_owned()]);
        Says {
            id: format!("_a{}", asked.id),
            issuer: self.entity_id.clone(),
            name_id: "erin-there".to_owned(),
            name_id_attributes: r#" Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent""#
                .to_owned(),
            attributes: vec![
                attribute("email", "erin@acme.example"),
                attribute("displayName", "Erin There"),
                attribute("username", "erin.upstream"),
                ("groups".to_owned(), vec!["Eng".to_owned(), "admins".to_owned()]),
            ],
            audience: world.idp.endpoint(&format!("/saml/{upstream}")),
            recipient: world.idp.endpoint(&format!("/callback/{upstream}")),
            in_response_to: asked.id.clone(),
            at: now,
            ends: now.plus(300),
            authn_instant: now,
            session_ends: None,
            class: "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport".to_owned(),
            conditions: String::new(),
            status: "urn:oasis:names:tc:SAML:2.0:status:Success".to_owned(),
        }
    }

    /// An assertion, in canonical form.
    pub fn assertion(&self, says: &Says) -> String {
        let Says { id, issuer, name_id, name_id_attributes, audience, recipient, .. } = says;
        let (at, ends, instant) = (time(says.at), time(says.ends), time(says.authn_instant));
        let (request, class) = (&says.in_response_to, &says.class);
        let session = says
            .session_ends
            .map_or(String::new(), |ends| format!(r#" SessionNotOnOrAfter="{}""#, time(ends)));
        let request = if request.is_empty() {
            String::new()
        } else {
            format!(r#" InResponseTo="{request}""#)
        };
        let attributes: Vec<String> = says
            .attributes
            .iter()
            .map(|(name, values)| {
                let values: Vec<String> = values
                    .iter()
                    .map(|value| format!("<saml:AttributeValue>{value}</saml:AttributeValue>"))
                    .collect();
                let values = values.concat();
                format!(r#"<saml:Attribute Name="{name}">{values}</saml:Attribute>"#)
            })
            .collect();
        let attributes = attributes.concat();
        format!(
            r#"<saml:Assertion xmlns:saml="{ASSERTION}" ID="{id}" IssueInstant="{at}" Version="2.0"><saml:Issuer>{issuer}</saml:Issuer><saml:Subject><saml:NameID{name_id_attributes}>{name_id}</saml:NameID><saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData{request} NotOnOrAfter="{ends}" Recipient="{recipient}"></saml:SubjectConfirmationData></saml:SubjectConfirmation></saml:Subject><saml:Conditions NotBefore="{at}" NotOnOrAfter="{ends}"><saml:AudienceRestriction><saml:Audience>{audience}</saml:Audience></saml:AudienceRestriction>{}</saml:Conditions><saml:AuthnStatement AuthnInstant="{instant}" SessionIndex="s-{id}"{session}><saml:AuthnContext><saml:AuthnContextClassRef>{class}</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement><saml:AttributeStatement>{attributes}</saml:AttributeStatement></saml:Assertion>"#,
            says.conditions
        )
    }

    /// A response around an assertion, in canonical form.
    pub fn response(&self, says: &Says, assertion: &str) -> String {
        let (at, issuer, recipient) = (time(says.at), &says.issuer, &says.recipient);
        let (request, status) = (&says.in_response_to, &says.status);
        let request = if request.is_empty() {
            String::new()
        } else {
            format!(r#" InResponseTo="{request}""#)
        };
        format!(
            r#"<samlp:Response xmlns:samlp="{PROTOCOL}" Destination="{recipient}" ID="_r{}"{request} IssueInstant="{at}" Version="2.0"><saml:Issuer xmlns:saml="{ASSERTION}">{issuer}</saml:Issuer><samlp:Status><samlp:StatusCode Value="{status}"></samlp:StatusCode></samlp:Status>{assertion}</samlp:Response>"#,
            says.id
        )
    }

    /// A signature over a canonical document with this ID.
    pub fn signature(&self, document: &str, id: &str) -> String {
        self.signature_with(document, id, |info| info)
    }

    /// A signature whose `SignedInfo` a test changes before it is signed.
    pub fn signature_with(
        &self,
        document: &str,
        id: &str,
        change: impl FnOnce(String) -> String,
    ) -> String {
        let digest = STANDARD.encode(digest(&SHA256, document.as_bytes()));
        let exclusive = "http://www.w3.org/2001/10/xml-exc-c14n#";
        let info = format!(
            r##"<ds:SignedInfo xmlns:ds="{SIGNATURE}"><ds:CanonicalizationMethod Algorithm="{exclusive}"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"></ds:SignatureMethod><ds:Reference URI="#{id}"><ds:Transforms><ds:Transform Algorithm="{SIGNATURE}enveloped-signature"></ds:Transform><ds:Transform Algorithm="{exclusive}"></ds:Transform></ds:Transforms><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></ds:DigestMethod><ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>"##
        );
        let info = change(info);
        let value = STANDARD.encode(self.key.sign_saml(info.as_bytes()).unwrap());
        // Inside, the namespace is declared by what is around it.
        let info = info.replacen(&format!(r#" xmlns:ds="{SIGNATURE}""#), "", 1);
        let certificate = STANDARD.encode(&self.certificate);
        format!(
            r#"<ds:Signature xmlns:ds="{SIGNATURE}">{info}<ds:SignatureValue>{value}</ds:SignatureValue><ds:KeyInfo><ds:X509Data><ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></ds:Signature>"#
        )
    }

    /// An assertion with its signature in it.
    pub fn signed(&self, says: &Says) -> String {
        let assertion = self.assertion(says);
        with_signature(&assertion, &self.signature(&assertion, &says.id))
    }

    /// A response whose assertion is signed.
    pub fn with_signed_assertion(&self, says: &Says) -> String {
        self.response(says, &self.signed(says))
    }

    /// A response that is signed as a whole.
    pub fn signed_response(&self, says: &Says) -> String {
        let response = self.response(says, &self.assertion(says));
        let signature = self.signature(&response, &format!("_r{}", says.id));
        with_signature(&response, &signature)
    }
}

/// Puts a signature behind the first issuer.
pub fn with_signature(document: &str, signature: &str) -> String {
    document.replacen("</saml:Issuer>", &format!("</saml:Issuer>{signature}"), 1)
}

impl World {
    /// Adds an upstream of SAML, with what a test wants to be another.
    pub async fn add_saml(&self, name: &str, metadata: &str, more: Value) {
        let mut new = json!({"name": name, "just_in_time": true, "saml": {"metadata": metadata}});
        for (member, value) in more.as_object().unwrap() {
            if member == "saml" {
                for (member, value) in value.as_object().unwrap() {
                    new["saml"][member] = value.clone();
                }
            } else {
                new[member] = value.clone();
            }
        }
        let new = serde_json::from_value(new).unwrap();
        self.idp_admin().add::<Upstreams>(&new).await.unwrap();
    }

    /// Begins a sign-in at an upstream of SAML: the request that arrives there, and the verifier of the
    /// client.
    pub async fn ask_saml(
        &self,
        browser: &mut Browser,
        upstream: &str,
        more: &str,
    ) -> (Asked, String) {
        let (url, verifier) = self.authorize_url(AGENT, &format!("&upstream={upstream}{more}"));
        let reply = browser.get(self, &url).await;
        if reply.status == 200 {
            let field = |name: &str| {
                let (_, rest) =
                    reply.text.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
                rest.split('"').next().unwrap().to_owned()
            };
            let xml = STANDARD.decode(field("SAMLRequest")).unwrap();
            let xml = String::from_utf8(xml).unwrap();
            let asked = Asked {
                id: id_of(&xml),
                relay_state: field("RelayState"),
                xml,
                query: BTreeMap::new(),
                url: String::new(),
            };
            return (asked, verifier);
        }
        assert_eq!(reply.status, 303, "{}", reply.text);
        let url = url::Url::parse(reply.header("location")).unwrap();
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let mut xml = String::new();
        let deflated = STANDARD.decode(&query["SAMLRequest"]).unwrap();
        DeflateDecoder::new(deflated.as_slice()).read_to_string(&mut xml).unwrap();
        let asked = Asked {
            id: id_of(&xml),
            relay_state: query["RelayState"].clone(),
            xml,
            query,
            url: url.to_string(),
        };
        (asked, verifier)
    }

    /// The post of a response from the identity provider's page.
    pub fn post_saml(&self, upstream: &str, response: &str, relay_state: &str) -> Ask {
        Ask {
            url: self.idp.endpoint(&format!("/callback/{upstream}")),
            form: vec![
                ("SAMLResponse".to_owned(), STANDARD.encode(response)),
                ("RelayState".to_owned(), relay_state.to_owned()),
            ],
            headers: vec![
                ("origin".to_owned(), "https://sso.acme.example".to_owned()),
                ("sec-fetch-site".to_owned(), "cross-site".to_owned()),
            ],
            method: Method::POST,
        }
    }

    /// Brings a response back as a browser does: from another site without cookies, then again by the
    /// page that is answered. Returns the last answer.
    pub async fn bring_saml(
        &self,
        browser: &mut Browser,
        upstream: &str,
        response: &str,
        relay_state: &str,
    ) -> Reply {
        let post = self.post_saml(upstream, response, relay_state);
        let page = self.send(&post).await;
        if page.status != 200 {
            return page;
        }
        assert!(page.text.contains("data-forward"), "{}", page.text);
        let mut again = post;
        again.form.push(("again".to_owned(), "1".to_owned()));
        let origin = self.idp.origin().to_owned();
        again.headers = vec![
            ("origin".to_owned(), origin),
            ("sec-fetch-site".to_owned(), "same-origin".to_owned()),
        ];
        browser.ask(self, again).await
    }

    /// A whole sign-in: the tokens, or the page where it stopped.
    pub async fn through_saml(
        &self,
        browser: &mut Browser,
        upstream: &str,
        more: &str,
        respond: impl FnOnce(&Asked) -> String,
    ) -> Result<Value, Reply> {
        let (asked, verifier) = self.ask_saml(browser, upstream, more).await;
        let response = respond(&asked);
        let reply = self.bring_saml(browser, upstream, &response, &asked.relay_state).await;
        let Some(to) = reply.headers.get("refresh").map(|to| to.to_str().unwrap().to_owned())
        else {
            return Err(reply);
        };
        let to = to.split_once("url=").unwrap().1;
        let back: BTreeMap<String, String> =
            url::Url::parse(to).unwrap().query_pairs().into_owned().collect();
        let Some(code) = back.get("code") else { return Err(reply) };
        let tokens = self.send(&self.redeem_at_idp(code, &verifier)).await;
        assert_eq!(tokens.status, 200, "{}", tokens.text);
        Ok(tokens.json)
    }
}

fn id_of(xml: &str) -> String {
    xml.split_once(" ID=\"").unwrap().1.split('"').next().unwrap().to_owned()
}
