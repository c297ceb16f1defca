//! Our request to an identity provider, by redirect or by POST (Bindings 3.4 and 3.5).

use crate::{
    instant,
    xml::{ASSERTION, PROTOCOL, SIGNATURE, escaped},
};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::DeflateEncoder};
use passavant_proto::{
    jose::jwk::SigningKey,
    saml::{FORMAT_UNSPECIFIED, SamlProvider},
    time::Timestamp,
};
use std::io::Write;

const POST: &str = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST";
const RSA_SHA256: &str = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256";

/// A request for somebody to sign in.
#[derive(Clone, Copy, Debug)]
pub struct AuthnRequest<'a> {
    /// Its ID, which the response names: a letter or `_` first, as XML has it.
    pub id: &'a str,
    /// The service provider's entity ID.
    pub issuer: &'a str,
    /// Where the response is to be posted.
    pub assertion_consumer_service: &'a str,
    /// The time.
    pub now: Timestamp,
    /// The person is to sign in anew.
    pub force_authn: bool,
    /// Authentication context classes, one of which is to be reached.
    pub classes: &'a [String],
}

/// How a browser takes the request there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is sent to this URL.
    Redirect(String),
    /// It posts a form with `SAMLRequest` and `RelayState`.
    Post {
        /// Where to.
        url: String,
        /// The value of `SAMLRequest`.
        request: String,
    },
}

impl AuthnRequest<'_> {
    /// The request for a provider, by the binding that it takes; signed if a key is given. `None` if it
    /// cannot be signed, or if the provider takes neither binding.
    pub fn sent(
        &self,
        provider: &SamlProvider,
        relay_state: &str,
        key: Option<&SigningKey>,
    ) -> Option<Sent> {
        if let Some(url) = &provider.redirect {
            let xml = self.xml(provider, url, "");
            let mut deflated = DeflateEncoder::new(Vec::new(), Compression::default());
            deflated.write_all(xml.as_bytes()).ok()?;
            let request = STANDARD.encode(deflated.finish().ok()?);
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("SAMLRequest", &request).append_pair("RelayState", relay_state);
            if key.is_some() {
                query.append_pair("SigAlg", RSA_SHA256);
            }
            let mut query = query.finish();
            if let Some(key) = key {
                // Over the very text that is sent (Bindings 3.4.4.1).
                let signature = STANDARD.encode(key.sign_saml(query.as_bytes())?);
                let mut signed = form_urlencoded::Serializer::new(query);
                query = signed.append_pair("Signature", &signature).finish();
            }
            let sign = if url.contains('?') { '&' } else { '?' };
            return Some(Sent::Redirect(format!("{url}{sign}{query}")));
        }
        let url = provider.post.clone()?;
        let unsigned = self.xml(provider, &url, "");
        let xml = match key {
            Some(key) => self.xml(provider, &url, &self.signature(&unsigned, key)?),
            None => unsigned,
        };
        Some(Sent::Post { url, request: STANDARD.encode(xml) })
    }

    /// The document, in canonical form: attributes in order, each namespace where it is used first.
    fn xml(&self, provider: &SamlProvider, destination: &str, signature: &str) -> String {
        let acs = escaped(self.assertion_consumer_service);
        let destination = escaped(destination);
        let force = if self.force_authn { r#" ForceAuthn="true""# } else { "" };
        let (id, at) = (escaped(self.id), instant::written(self.now));
        let issuer = escaped(self.issuer);
        let format = &provider.name_id_format;
        // Who is known by an attribute is not asked for a name; the form of which nothing is said is
        // no wish.
        let wished = provider.subject_attribute.is_none() && format != FORMAT_UNSPECIFIED;
        let policy = if wished {
            let format = escaped(format);
            format!(
                r#"<samlp:NameIDPolicy AllowCreate="true" Format="{format}"></samlp:NameIDPolicy>"#
            )
        } else {
            String::new()
        };
        let classes: Vec<String> = self
            .classes
            .iter()
            .map(|class| {
                let class = escaped(class);
                format!(
                    r#"<saml:AuthnContextClassRef xmlns:saml="{ASSERTION}">{class}</saml:AuthnContextClassRef>"#
                )
            })
            .collect();
        let classes = classes.concat();
        let context = if classes.is_empty() {
            String::new()
        } else {
            format!(
                r#"<samlp:RequestedAuthnContext Comparison="exact">{classes}</samlp:RequestedAuthnContext>"#
            )
        };
        format!(
            r#"<samlp:AuthnRequest xmlns:samlp="{PROTOCOL}" AssertionConsumerServiceURL="{acs}" Destination="{destination}"{force} ID="{id}" IssueInstant="{at}" ProtocolBinding="{POST}" Version="2.0"><saml:Issuer xmlns:saml="{ASSERTION}">{issuer}</saml:Issuer>{signature}{policy}{context}</samlp:AuthnRequest>"#
        )
    }

    /// The signature that is put into the document: enveloped, exclusive canonicalization. The document
    /// and what is signed here are canonical as they are written.
    fn signature(&self, document: &str, key: &SigningKey) -> Option<String> {
        let digest = STANDARD.encode(digest(&SHA256, document.as_bytes()));
        let id = escaped(self.id);
        let exclusive = "http://www.w3.org/2001/10/xml-exc-c14n#";
        let enveloped = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
        let sha256 = "http://www.w3.org/2001/04/xmlenc#sha256";
        let info = |namespace: &str| {
            format!(
                r##"<ds:SignedInfo{namespace}><ds:CanonicalizationMethod Algorithm="{exclusive}"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="{RSA_SHA256}"></ds:SignatureMethod><ds:Reference URI="#{id}"><ds:Transforms><ds:Transform Algorithm="{enveloped}"></ds:Transform><ds:Transform Algorithm="{exclusive}"></ds:Transform></ds:Transforms><ds:DigestMethod Algorithm="{sha256}"></ds:DigestMethod><ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>"##
            )
        };
        let signed = info(&format!(r#" xmlns:ds="{SIGNATURE}""#));
        let value = STANDARD.encode(key.sign_saml(signed.as_bytes())?);
        let info = info("");
        Some(format!(
            r#"<ds:Signature xmlns:ds="{SIGNATURE}">{info}<ds:SignatureValue>{value}</ds:SignatureValue></ds:Signature>"#
        ))
    }
}
