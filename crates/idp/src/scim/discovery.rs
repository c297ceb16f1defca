//! What this server can do, and which attributes it keeps (RFC 7644, section 4).

use super::{
    Answer, Asked,
    attributes::{ENTERPRISE, Kind, schemas},
    bulk,
    error::ScimError,
    users::LARGEST_PAGE,
};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";

pub(super) fn listed(resources: &[Value], total: i64, start: i64) -> Value {
    json!({"schemas": [LIST], "totalResults": total, "startIndex": start,
           "itemsPerPage": resources.len(), "Resources": resources})
}

fn resource_types(base: &str) -> Vec<Value> {
    [Kind::User, Kind::Group]
        .into_iter()
        .map(|kind| {
            let mut value = json!({
                "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
                "id": kind.name(), "name": kind.name(), "endpoint": format!("/{}", kind.endpoint()),
                "schema": kind.schema(), "description": format!("{}s of the company", kind.name()),
                "meta": {"resourceType": "ResourceType",
                         "location": format!("{base}/ResourceTypes/{}", kind.name())},
            });
            if kind == Kind::User {
                value["schemaExtensions"] = json!([{"schema": ENTERPRISE, "required": false}]);
            }
            value
        })
        .collect()
}

fn service_provider_config(base: &str) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": true},
        "bulk": {"supported": true, "maxOperations": bulk::MOST, "maxPayloadSize": super::LARGEST},
        "filter": {"supported": true, "maxResults": LARGEST_PAGE},
        "changePassword": {"supported": false},
        "sort": {"supported": false},
        "etag": {"supported": true},
        "authenticationSchemes": [{
            "type": "oauthbearertoken", "name": "Bearer token", "primary": true,
            "description": "a token that an administrator makes for one upstream (RFC 6750)",
            "specUri": "https://www.rfc-editor.org/info/rfc6750",
        }],
        "meta": {"resourceType": "ServiceProviderConfig",
                 "location": format!("{base}/ServiceProviderConfig")},
    })
}

impl Asked {
    pub(super) fn discovery(&self, steps: &[&str]) -> Result<Answer, ScimError> {
        if !matches!(self.method, Method::GET | Method::HEAD) {
            let detail = "what this server can do is read, not written";
            return Err(ScimError::new(StatusCode::METHOD_NOT_ALLOWED, detail));
        }
        if self.parameter("filter")?.is_some() {
            // RFC 7644, section 4: 403, so that nobody takes a filtered list for the whole.
            return Err(ScimError::new(StatusCode::FORBIDDEN, "these are not filtered"));
        }
        let all = |resources: Vec<Value>| {
            let total = i64::try_from(resources.len()).unwrap_or(i64::MAX);
            Ok(Answer::ok(listed(&resources, total, 1)))
        };
        let one = |resources: Vec<Value>, id: &str| {
            let found = resources.into_iter().find(|resource| resource["id"] == id);
            found.map(Answer::ok).ok_or_else(ScimError::missing)
        };
        match steps {
            [] | ["ServiceProviderConfig"] => Ok(Answer::ok(service_provider_config(&self.base))),
            ["ResourceTypes"] => all(resource_types(&self.base)),
            ["ResourceTypes", id] => one(resource_types(&self.base), id),
            ["Schemas"] => all(schemas(&self.base)),
            ["Schemas", id] => one(schemas(&self.base), id),
            _ => Err(ScimError::missing()),
        }
    }
}
