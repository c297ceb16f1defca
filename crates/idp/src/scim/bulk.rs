//! Several operations in one request (RFC 7644, section 3.7): in order, each a transaction of its own.

use super::{Answer, Asked, error::ScimError};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The most operations of one request.
pub(super) const MOST: usize = 200;

const RESPONSE: &str = "urn:ietf:params:scim:api:messages:2.0:BulkResponse";

/// Puts ids in the places of `bulkId:NAME`. What refers to something that is not made yet, or to
/// itself, cannot be done.
fn resolved(value: &Value, made: &HashMap<String, String>) -> Result<Value, ScimError> {
    Ok(match value {
        Value::String(text) => match text.strip_prefix("bulkId:") {
            Some(name) => made.get(name).map(|id| id.as_str().into()).ok_or_else(|| {
                let name = passavant_proto::others_text::shown(name, 100);
                let detail =
                    format!("`bulkId:{name}` was not made by an operation before this one");
                ScimError::new(StatusCode::CONFLICT, detail)
            })?,
            None => value.clone(),
        },
        Value::Array(values) => {
            values.iter().map(|value| resolved(value, made)).collect::<Result<_, _>>()?
        }
        Value::Object(members) => {
            let member =
                |(name, value): (&String, &Value)| Ok((name.clone(), resolved(value, made)?));
            Value::Object(members.iter().map(member).collect::<Result<_, ScimError>>()?)
        }
        value => value.clone(),
    })
}

impl Asked {
    pub(super) async fn bulk(&self) -> Result<Answer, ScimError> {
        if self.method != Method::POST {
            let detail = format!("{} is not for this address", self.method);
            return Err(ScimError::new(StatusCode::METHOD_NOT_ALLOWED, detail));
        }
        let body = self.json()?;
        let operations = body["Operations"]
            .as_array()
            .ok_or_else(|| ScimError::syntax("`Operations` must be a list"))?;
        if operations.len() > MOST {
            return Err(ScimError::too_large(format!(
                "{} operations in one request; {MOST} are the most",
                operations.len()
            )));
        }
        let most_errors = match &body["failOnErrors"] {
            Value::Null => usize::MAX,
            value => value
                .as_u64()
                .and_then(|most| usize::try_from(most).ok())
                .filter(|most| *most > 0)
                .ok_or_else(|| ScimError::value("`failOnErrors` must be a whole number from 1"))?,
        };
        let (mut made, mut errors) = (HashMap::new(), 0);
        let mut answers = Vec::with_capacity(operations.len());
        for operation in operations {
            if errors >= most_errors {
                break;
            }
            let method = operation["method"].as_str().unwrap_or_default().to_ascii_uppercase();
            let name = operation["bulkId"].as_str();
            let mut answer = json!({"method": method});
            if let Some(name) = name {
                answer["bulkId"] = name.into();
            }
            match self.operation(&method, name, operation, &made).await {
                Ok(done) => {
                    answer["status"] = done.status.as_str().into();
                    if let Some(version) = done.version {
                        answer["version"] = version.into();
                    }
                    let resource = done.body.unwrap_or_default();
                    if let Some(location) = resource["meta"]["location"].as_str() {
                        answer["location"] = location.into();
                    } else if let Some(path) = operation["path"].as_str() {
                        answer["location"] = format!("{}{path}", self.base).into();
                    }
                    if let (Some(name), Some(id)) = (name, resource["id"].as_str()) {
                        made.insert(name.to_owned(), id.to_owned());
                    }
                }
                Err(error) => {
                    errors += 1;
                    answer["status"] = error.status.as_str().into();
                    answer["response"] = error.body();
                }
            }
            answers.push(answer);
        }
        Ok(Answer::ok(json!({"schemas": [RESPONSE], "Operations": answers})))
    }

    async fn operation(
        &self,
        method: &str,
        name: Option<&str>,
        operation: &Value,
        made: &HashMap<String, String>,
    ) -> Result<Answer, ScimError> {
        let known = ["POST", "PUT", "PATCH", "DELETE"].into_iter().find(|known| *known == method);
        let method = known.and_then(|known| known.parse::<Method>().ok());
        let method = method
            .ok_or_else(|| ScimError::syntax("`method` must be POST, PUT, PATCH or DELETE"))?;
        if method == Method::POST && name.is_none() {
            return Err(ScimError::syntax("an operation with POST needs a `bulkId`"));
        }
        let path = operation["path"].as_str().unwrap_or_default();
        let path = path.strip_prefix('/').ok_or_else(|| {
            ScimError::syntax("`path` must begin with a slash, for instance /Users")
        })?;
        let steps: Vec<String> = path
            .split('/')
            .map(|step| match resolved(&step.into(), made)? {
                Value::String(step) => Ok(step),
                _ => Ok(String::new()),
            })
            .collect::<Result<_, ScimError>>()?;
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        if steps.contains(&".search") {
            return Err(ScimError::syntax("a search is a request of its own"));
        }
        let data = resolved(&operation["data"], made)?;
        let version = match &operation["version"] {
            Value::Null => None,
            Value::String(version) => Some(version.as_str()),
            _ => return Err(ScimError::value("`version` must be a text")),
        };
        self.resource(&method, &steps, &data, version).await
    }
}
