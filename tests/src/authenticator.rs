//! An authenticator for passkeys, which does what it is told: also what a real one never does.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// User present.
pub const UP: u8 = 1;
/// User verified.
pub const UV: u8 = 4;

/// One passkey, with the power to lie about everything.
pub struct Authenticator {
    key: EcdsaKeyPair,
    /// Credential id.
    pub id: Vec<u8>,
    /// User handle, as it was told at the registration.
    pub handle: String,
    /// The name it is for.
    pub rp_id: String,
    /// The origin it says that it was asked from.
    pub origin: String,
    /// What it says of the person.
    pub flags: u8,
    /// Signature counter.
    pub counter: u32,
    /// More members of the client data.
    pub more: Value,
    /// Type of the client data; empty: the right one.
    pub kind: String,
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Authenticator {
    /// One that is asked from this origin.
    pub fn new(origin: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let id = digest(&SHA256, key.public_key().as_ref()).as_ref().to_vec();
        let host = url::Url::parse(origin).unwrap().host_str().unwrap().to_owned();
        Self {
            key,
            id,
            handle: String::new(),
            rp_id: host,
            origin: origin.to_owned(),
            flags: UP | UV,
            counter: 0,
            more: json!({}),
            kind: String::new(),
        }
    }

    fn client_data(&self, kind: &str, challenge: &Value) -> Vec<u8> {
        let kind = if self.kind.is_empty() { kind } else { &self.kind };
        let mut data = json!({"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": false});
        for (member, value) in self.more.as_object().unwrap() {
            data[member] = value.clone();
        }
        data.to_string().into_bytes()
    }

    fn authenticator_data(&self, more: &[u8], flags: u8) -> Vec<u8> {
        let rp_id = digest(&SHA256, self.rp_id.as_bytes());
        let counter = self.counter.to_be_bytes();
        [rp_id.as_ref(), &[self.flags | flags], &counter, more].concat()
    }

    /// The public key in COSE (RFC 9052).
    fn cose(&self) -> Vec<u8> {
        let point = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        let head = [0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20];
        [&head[..], x, &[0x22, 0x58, 0x20], y].concat()
    }

    /// The answer to the options of a registration.
    pub fn make(&mut self, options: &Value) -> String {
        options["user"]["id"].as_str().unwrap().clone_into(&mut self.handle);
        self.counter += 1;
        let length = u16::try_from(self.id.len()).unwrap().to_be_bytes();
        let held = [&[0; 16][..], &length, &self.id, &self.cose()].concat();
        let data = self.authenticator_data(&held, 64);
        let mut object = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData".to_vec();
        object.extend([0x59]);
        object.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        object.extend(&data);
        let client = self.client_data("webauthn.create", &options["challenge"]);
        json!({"id": text(&self.id), "rawId": text(&self.id), "type": "public-key",
            "response": {"clientDataJSON": text(&client), "attestationObject": text(&object),
                "transports": ["internal"]},
            "clientExtensionResults": {"credProps": {"rk": true}}})
        .to_string()
    }

    /// The answer to the options of a sign-in.
    pub fn sign(&mut self, options: &Value) -> String {
        self.counter += 1;
        let data = self.authenticator_data(&[], 0);
        let client = self.client_data("webauthn.get", &options["challenge"]);
        let hash = digest(&SHA256, &client);
        let signed = [&data[..], hash.as_ref()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        json!({"id": text(&self.id), "rawId": text(&self.id), "type": "public-key",
            "response": {"clientDataJSON": text(&client), "authenticatorData": text(&data),
                "signature": text(signature.as_ref()), "userHandle": self.handle},
            "clientExtensionResults": {}})
        .to_string()
    }
}
