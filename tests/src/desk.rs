//! An employee's computer: an installation of Passavant that was enrolled through the sign-in page,
//! as in a browser.

use crate::world::{PASSWORD, World};
use passavant_client::{
    Client, Credential, MemoryVault, Registration, Settings, SignInOptions, begin_enrolment,
};
use passavant_outbound::Outbound;
use passavant_proto::jose::jwk::{Algorithm, SigningKey};
use std::sync::Arc;

/// A fresh ES256 key.
pub fn installation_key() -> SigningKey {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let scheme = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let der = aws_lc_rs::signature::EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
    SigningKey::from_pkcs8(Algorithm::ES256, der.as_ref()).unwrap()
}

/// An enrolled installation, signed in.
pub struct Desk {
    /// The client library, as the command line uses it.
    pub client: Client,
    /// Its client id: the URL of its metadata document.
    pub client_id: String,
    /// Its key.
    pub key: Arc<SigningKey>,
    /// What is stored on it.
    pub vault: Arc<MemoryVault>,
}

impl World {
    /// Enrols an installation for a person and signs them in, in one browser tab.
    pub async fn desk(&self, username: &str) -> Desk {
        let outbound = Outbound::new(&[]).unwrap();
        let options = SignInOptions::default();
        let pending = begin_enrolment(&outbound, &self.idp, &self.entropy(), &options).await;
        let pending = pending.unwrap().unwrap();
        let url = pending.url().to_owned();
        let key = Arc::new(installation_key());
        let vault = Arc::<MemoryVault>::default();
        let person = async {
            let (location, cookies) = self.browse(&url, username, PASSWORD).await;
            // The tab waits until the installation is enrolled, and is then redirected to the
            // sign-in.
            let mut next = location;
            for _ in 0..6 {
                let asked = self.http.get(&next);
                let ours = next.starts_with(self.idp.as_str());
                let asked = if ours { asked.header("cookie", &cookies) } else { asked };
                let reply = asked.send().await.unwrap();
                match reply.headers().get("location") {
                    Some(location) => location.to_str().unwrap().clone_into(&mut next),
                    None => return reply.status().as_u16(),
                }
            }
            panic!("the browser was sent in circles");
        };
        let program = async {
            let enrolled = pending.finish(&key, "erin's laptop", None).await.unwrap();
            let client_id = enrolled.client_id.clone();
            let credential = Credential::Key(Arc::clone(&key));
            let own = Registration { client_id: client_id.clone(), credential };
            let settings = Settings::new(self.idp.clone(), own);
            let client = self.client_in(settings, Arc::clone(&vault));
            let pending = client.go_on_to_sign_in(enrolled.loopback, enrolled.tab, &options).await;
            pending.unwrap().finish().await.unwrap();
            (client, client_id)
        };
        let (status, (client, client_id)) = tokio::join!(person, program);
        assert_eq!(status, 200, "the last page");
        Desk { client, client_id, key, vault }
    }
}
