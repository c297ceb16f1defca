//! The OpenAPI document, made from the table.

use super::{Op, idp, ras};
use crate::types::Problem;
use axum::http::Method;
use std::collections::BTreeMap;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder,
        PathItem, PathsBuilder, Ref, RefOr, Required, ResponseBuilder, Schema,
        header::HeaderBuilder,
        path::{OperationBuilder, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        schema::{ObjectBuilder, SchemaType, Type},
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

/// The OpenAPI document of the whole administration API.
fn document() -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut schemas = BTreeMap::new();
    let problem = Problem::name().into_owned();
    schemas.insert(problem.clone(), Problem::schema());
    let (idp, ras) = (idp(), ras());
    let ops = idp.ops.into_iter().map(|op| (idp.base, op));
    for (base, op) in ops.chain(ras.ops.into_iter().map(|op| (ras.base, op))) {
        schemas.extend(op.schemas.iter().cloned());
        let (path, item) = described(base, op);
        paths = paths.path(path, item);
    }
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let mut components = ComponentsBuilder::new();
    for (status, what) in FAILURES {
        let schema = RefOr::<Schema>::Ref(Ref::from_schema_name(&problem));
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response =
            ResponseBuilder::new().description(what).content("application/problem+json", content);
        components = components.response(status, response.build());
    }
    let components =
        components.security_scheme("administrator", bearer).schemas_from_iter(schemas).build();
    let info =
        InfoBuilder::new().title("Passavant administration").version(env!("CARGO_PKG_VERSION"));
    let info = info.description(Some(
        "Who may do what is said with each operation: `auditor` sees, `helpdesk` cuts off too, `admin` changes, `owner` \
         appoints administrators. Where `If-Match` is heeded, it takes one ETag or `*`, and 412 says that the record is \
         another one. A request with an `Idempotency-Key` (1 to 255 visible ASCII characters) is done once, however often it \
         is sent within a day. Ids that are URLs stand percent-encoded in paths.",
    ));
    OpenApiBuilder::new()
        .info(info.build())
        .paths(paths.build())
        .components(Some(components))
        .security(Some([SecurityRequirement::new("administrator", Vec::<String>::new())]))
        .build()
}

/// The document as text, as it is served and checked in.
pub fn document_text() -> String {
    let mut document = serde_json::to_value(document()).unwrap_or_default();
    without_nul(&mut document);
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

/// Forbids NUL in all strings, because no database accepts it.
fn without_nul(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_nul),
        serde_json::Value::Object(members) => {
            let kind = members.get("type");
            let text = kind.is_some_and(|kind| {
                kind == "string"
                    || kind.as_array().is_some_and(|all| all.contains(&"string".into()))
            });
            if text && !members.contains_key("enum") && !members.contains_key("pattern") {
                members.insert("pattern".to_owned(), r"^[^\u0000]*$".into());
            }
            members.values_mut().for_each(without_nul);
        }
        _ => {}
    }
}

fn text() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).build().into()
}

/// The errors that any operation may return.
const FAILURES: [(&str, &str); 9] = [
    ("400", "Something in it is wrong"),
    ("401", "Nobody is let in by this"),
    ("403", "The administrator's role is not enough"),
    ("404", "There is no such record"),
    ("409", "What is there stands against it"),
    ("412", "The record is not as it was read"),
    ("421", "The host name is not this API's"),
    ("422", "The idempotency key was used for something else"),
    ("503", "Nothing can be read or written just now"),
];

fn described(base: &str, op: Op) -> (String, PathItem) {
    let path = format!("{base}{}", op.path);
    let role = op.need.least().word();
    let id = format!("{} {path}", op.method)
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect::<Vec<_>>()
        .join("_");
    let mut operation = OperationBuilder::new()
        .operation_id(Some(id))
        .tag(if base == "/idp" { "identity provider" } else { "resource authorization server" })
        .summary(Some(op.summary))
        .description(Some(format!(
            "Takes the role `{role}` or more.{}{}",
            if op.conditional { " Heeds `If-Match`." } else { "" },
            if op.method == Method::GET { "" } else { " Heeds `Idempotency-Key`." }
        )));
    for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(text()));
        operation = operation.parameter(parameter);
    }
    if let Some(RefOr::T(Schema::Object(query))) = op.query {
        for (name, schema) in query.properties {
            let required =
                if query.required.contains(&name) { Required::True } else { Required::False };
            let parameter = ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Query)
                .required(required)
                .schema(Some(schema));
            operation = operation.parameter(parameter);
        }
    }
    if let Some(body) = op.body {
        let content = ContentBuilder::new().schema(Some(body)).build();
        let body = RequestBodyBuilder::new()
            .content("application/json", content)
            .required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    let done = match op.answer {
        None => ("204", ResponseBuilder::new().description("Done")),
        Some(schema) => {
            let content = ContentBuilder::new().schema(Some(schema)).build();
            let done =
                ResponseBuilder::new().description("Done").content("application/json", content);
            let tag = HeaderBuilder::new().schema(text()).build();
            ("200", if op.tagged { done.header("ETag", tag) } else { done })
        }
    };
    operation = operation.response(done.0, done.1.build());
    for (status, _) in FAILURES {
        operation = operation.response(status, Ref::from_response_name(status));
    }
    let method = match op.method {
        Method::GET => HttpMethod::Get,
        Method::PATCH => HttpMethod::Patch,
        Method::DELETE => HttpMethod::Delete,
        _ => HttpMethod::Post,
    };
    (path, PathItem::new(method, operation.build()))
}
