//! What exists before a test begins: people, clients, servers, connections.

use super::START;
use super::{AGENT, AGENT_AT_RAS, CALLBACK, PASSWORD, World};
use passavant_authority::Passwords;
use passavant_proto::identifier::Resource;
use passavant_proto::jose::jwk::Algorithm;
use passavant_proto::oauth::client::Client;
use passavant_proto::oauth::client::ClientAuthentication;
use passavant_proto::oauth::client::ClientKeys;
use passavant_proto::oauth::client::ENROLLED_CLIENT;
use passavant_proto::oauth::client::GovernedResource;
use passavant_proto::oauth::client::SecretHash;
use passavant_proto::oauth::scope::Scopes;
use passavant_proto::policy::Conditions;
use passavant_proto::policy::Connection;
use passavant_proto::policy::RegisteredResource;
use passavant_proto::policy::ResourceAuthorizationServer;
use passavant_proto::policy::Subject;
use passavant_proto::secret::Secret;
use passavant_proto::time::Timestamp;
use passavant_proto::xaa::trust::AccountResolution;
use passavant_proto::xaa::trust::TrustedIssuer;
use passavant_store::AuditEvent;
use passavant_store::Group;
use passavant_store::Put;
use passavant_store::Record;
use passavant_store::Store;
use passavant_store::User;
use serde_json::json;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

impl World {
    /// A record, as if an administrator had added it.
    pub async fn put<R: Record>(&self, store: &Store, record: &R) {
        let event = AuditEvent::granted(
            passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
            self.now(),
        );
        assert!(store.put(record, Put::Create, event).await.unwrap());
    }

    /// Clients with each way to authenticate, all with the same secret or key.
    async fn fill_clients(&self, store: &Store, agent: &str, public: bool) {
        let hash = SecretHash { hash: self.secret.hash(), expires: None };
        let expired = SecretHash { expires: Some(Timestamp(START - 1)), ..hash.clone() };
        let jwks = json!({"keys": [self.client_key.jwk()]});
        let key = ClientAuthentication::PrivateKeyJwt {
            keys: ClientKeys::Inline(jwks),
            algorithm: Algorithm::ES256,
        };
        let mut clients = vec![
            (agent.to_owned(), ClientAuthentication::Secret(vec![hash.clone()]), false),
            ("sibling".to_owned(), ClientAuthentication::Secret(vec![hash.clone()]), false),
            ("disabled".to_owned(), ClientAuthentication::Secret(vec![hash]), true),
            ("expired".to_owned(), ClientAuthentication::Secret(vec![expired]), false),
            (format!("{agent}-jwt"), key, false),
        ];
        if public {
            clients.push(("public".to_owned(), ClientAuthentication::Public, false));
        }
        for (id, authentication, disabled) in clients {
            let client = Client {
                name: id.clone(),
                id,
                authentication,
                redirect_uris: vec![CALLBACK.to_owned(), "https://app.example/cb".to_owned()],
                post_logout_redirect_uris: vec!["https://app.example/bye".to_owned()],
                disabled,
                ..Client::default()
            };
            self.put(store, &client).await;
        }
    }

    pub(super) async fn fill_idp(&self, passwords: &Passwords) {
        let store = &self.idp_store;
        self.fill_clients(store, AGENT, true).await;
        let password_hash = Some(passwords.hash(&Secret::new(PASSWORD)).await.unwrap());
        for (username, group) in [("erin", "engineering"), ("max", "marketing")] {
            self.put(store, &Group { name: group.to_owned(), description: String::new() }).await;
            let user = User {
                email: Some(format!("{username}@acme.example")),
                email_verified: true,
                display_name: Some(username.to_uppercase()),
                groups: [group.to_owned()].into(),
                password_hash: password_hash.clone(),
                ..User::new(&format!("{username}-id"), username)
            };
            self.put(store, &user).await;
        }
        for (server, resources) in
            [(&self.ras, vec![&self.canvas, &self.boards]), (&self.other_ras, vec![&self.notes])]
        {
            let record = ResourceAuthorizationServer {
                issuer: server.clone(),
                name: String::new(),
                aliases: vec![format!("{server}/alias")],
                aud_tenant: None,
                aud_sub: None,
                sub_id: None,
                id_jag_signing_alg: None,
                release: BTreeSet::new(),
                algorithm: Algorithm::default(),
                disabled: false,
            };
            self.put(store, &record).await;
            for resource in resources {
                let record = RegisteredResource {
                    resource: Resource::parse(resource).unwrap(),
                    authorization_server: server.clone(),
                    name: String::new(),
                    scopes: ["read", "write"].into_iter().collect(),
                    disabled: false,
                };
                self.put(store, &record).await;
            }
        }
        for client in [AGENT, "agent-jwt", "public", ENROLLED_CLIENT] {
            let at_ras = if client == AGENT { AGENT_AT_RAS } else { "agent-at-ras-jwt" };
            let mut base = self.connection(client, at_ras);
            if client == ENROLLED_CLIENT {
                base.ras_client_id = None;
            }
            self.put(store, &base).await;
            let notes = Connection {
                id: format!("{client}-notes"),
                audience: self.other_ras.clone(),
                resources: vec![Resource::parse(&self.notes).unwrap()],
                subjects: vec![Subject::Everyone],
                ..base
            };
            self.put(store, &notes).await;
        }
    }

    /// Engineering may use canvas and boards through `client`.
    pub fn connection(&self, client: &str, at_ras: &str) -> Connection {
        let resources = [&self.canvas, &self.boards];
        Connection {
            id: format!("{client}-canvas"),
            idp_client_id: client.to_owned(),
            audience: self.ras.clone(),
            ras_client_id: Some(at_ras.to_owned()),
            resources: resources.iter().map(|r| Resource::parse(r).unwrap()).collect(),
            scopes: ["read", "write"].into_iter().collect(),
            subjects: vec![Subject::Group("engineering".to_owned())],
            conditions: Conditions::default(),
            disabled: false,
        }
    }

    pub(super) async fn fill_ras(&self, store: &Store, resources: &[&String]) {
        self.fill_clients(store, AGENT_AT_RAS, false).await;
        let trusted = TrustedIssuer {
            issuer: self.idp.clone(),
            jwks_uri: None,
            algorithm: Algorithm::ES256,
            tenant: None,
            audience_tenant: None,
            accounts: AccountResolution { just_in_time: true, email_domains: Vec::new() },
            allow_reuse: false,
            client_documents: true,
            sign_in: None,
            disabled: false,
        };
        self.put(store, &trusted).await;
        for resource in resources {
            let governed = GovernedResource {
                resource: Resource::parse(resource).unwrap(),
                name: String::new(),
                scopes: ["read", "write"].into_iter().collect(),
                default_scopes: Scopes::default(),
                descriptions: BTreeMap::new(),
                access_token_lifetime: None,
                access_token_signing_alg: None,
                require_dpop: false,
                disabled: false,
            };
            self.put(store, &governed).await;
        }
    }

    /// Registers an MCP server at RAS and IdP.
    pub async fn register(&self, name: &str, url: &str) -> Resource {
        let scopes = || ["read", "write"].into_iter().collect::<Scopes>();
        let resource = Resource::parse(url).unwrap();
        let governed = GovernedResource {
            resource: resource.clone(),
            name: name.to_owned(),
            scopes: scopes(),
            default_scopes: ["read"].into_iter().collect(),
            descriptions: BTreeMap::new(),
            access_token_lifetime: None,
            access_token_signing_alg: None,
            require_dpop: false,
            disabled: false,
        };
        self.put(&self.ras_store, &governed).await;
        let registered = RegisteredResource {
            resource: resource.clone(),
            authorization_server: self.ras.clone(),
            name: name.to_owned(),
            scopes: scopes(),
            disabled: false,
        };
        self.put(&self.idp_store, &registered).await;
        resource
    }
}
