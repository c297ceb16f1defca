//! The demo's walk: each step really does one thing, and says in one sentence what happened.

use super::{
    browser,
    company::{Company, Person, Vendor},
};
use anyhow::{Result, anyhow, bail, ensure};
use passavant_admin::types::Users;
use passavant_client::{
    AccessToken, Client, Error, IdJagView, McpServer, MemoryVault, SignInOptions, SubjectTokenKind,
};
use passavant_proto::jose::jws;
use passavant_store::{AuditFilter, AuditRow};
use rmcp::{ServiceExt, model::CallToolRequestParams};
use serde_json::{Value, json};
use std::time::Instant;

/// One step, for programs and people.
pub(crate) struct Step {
    name: String,
    ok: bool,
    ms: f64,
    text: String,
    details: Vec<(String, Value)>,
}

impl Step {
    fn to_json(&self) -> Value {
        let mut value = json!({"name": self.name, "ok": self.ok, "ms": self.ms, "text": self.text});
        for (name, detail) in &self.details {
            value[name] = detail.clone();
        }
        value
    }
}

/// The steps so far.
#[derive(Default)]
pub(crate) struct Walk {
    steps: Vec<Step>,
    quiet: bool,
}

/// The result of a step.
struct StepResult {
    text: String,
    details: Vec<(String, Value)>,
}

impl StepResult {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), details: Vec::new() }
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.push((name.to_owned(), value.into()));
        self
    }
}

impl Walk {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { steps: Vec::new(), quiet }
    }

    /// Whether every step had the expected result.
    pub(crate) fn ok(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| step.ok)
    }

    pub(crate) fn to_json(&self) -> Value {
        let steps: Vec<Value> = self.steps.iter().map(Step::to_json).collect();
        json!({"steps": steps, "ok": self.ok()})
    }

    async fn step<T>(
        &mut self,
        name: impl Into<String>,
        work: impl Future<Output = Result<(T, StepResult)>>,
    ) -> Result<T> {
        let started = Instant::now();
        let outcome = work.await;
        let ms = (started.elapsed().as_secs_f64() * 10_000.0).round() / 10.0;
        let (value, result, ok) = match outcome {
            Ok((value, result)) => (Ok(value), result, true),
            Err(error) => {
                let result = StepResult::new(format!("{error:#}"));
                (Err(error), result, false)
            }
        };
        let step = Step { name: name.into(), ok, ms, text: result.text, details: result.details };
        if !self.quiet {
            let mark = if ok { "ok    " } else { "FAILED" };
            println!("{mark} {:<16} {:>8.1} ms  {}", step.name, step.ms, step.text);
            for (name, detail) in &step.details {
                print_detail(name, detail);
            }
        }
        self.steps.push(step);
        value
    }
}

fn print_detail(name: &str, detail: &Value) {
    let text = match detail {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    for (i, line) in text.lines().enumerate() {
        let label = if i == 0 { name } else { "" };
        println!("{:>29}  {label:<13} {line}", "");
    }
}

fn client(company: &Company) -> Client {
    Client::new(
        company.client_settings(),
        Box::new(MemoryVault::default()),
        company.outbound.clone(),
        company.clock.clone(),
        company.entropy.clone(),
    )
}

async fn sign_in(company: &Company, client: &Client, person: &Person) -> Result<String> {
    let pending = client.begin_sign_in(&SignInOptions::default()).await?;
    let url = pending.url().to_owned();
    let (session, opened) = tokio::join!(
        pending.finish(),
        browser::sign_in(&company.outbound, &url, person.username, &person.password)
    );
    opened?;
    Ok(session?.name)
}

/// Claims of a JWT for display: never the whole token.
fn decoded(token: &str) -> Result<Value> {
    let (_, claims) = jws::peek(token)?;
    Ok(Value::Object(claims.into_object()))
}

/// Runs all steps; stops at the first that fails.
pub(crate) async fn take(company: &Company, walk: &mut Walk) -> Result<()> {
    let erin = client(company);
    walk.step("login", async {
        let name = sign_in(company, &erin, &company.engineer).await?;
        let group = company.engineer.group;
        let text = match &company.upstream {
            None => {
                format!("{name} ({group}) signs in once: code flow with PKCE, through the sign-in page.")
            }
            Some(_) => format!(
                "{name} ({group}) signs in once, at the identity provider that Acme has had all along; she is added \
                 here, in the group that her group there means."
            ),
        };
        Ok(((), StepResult::new(text)))
    })
    .await?;
    let mut spent = None;
    for vendor in &company.vendors {
        let (server, id_jag) =
            walk.step(format!("exchange:{}", vendor.name), exchange(&erin, vendor)).await?;
        let token = walk
            .step(format!("redeem:{}", vendor.name), redeem(&erin, vendor, &server, &id_jag))
            .await?;
        erin.hold(&server, token);
        walk.step(format!("call:{}", vendor.name), call(&erin, vendor, &server)).await?;
        spent = Some((server, id_jag));
    }
    walk.step("refused", refused(company)).await?;
    let (server, id_jag) = spent.ok_or_else(|| anyhow!("there is no vendor"))?;
    walk.step("replay", replay(&erin, &server, &id_jag)).await?;
    walk.step("cutoff", cut_off(company, &erin, &server)).await?;
    walk.step("audit", audit(company)).await?;
    Ok(())
}

async fn exchange(
    client: &Client,
    vendor: &Vendor,
) -> Result<((McpServer, IdJagView), StepResult)> {
    let server = client.discover(&vendor.url).await?;
    let id_jag = client.id_jag(&server, server.scopes.as_ref()).await?;
    let claims = Value::Object(id_jag.claims.clone().into_object());
    let text = format!(
        "The identity provider's policy allows {}, and vouches with an ID-JAG: no page, no click.",
        vendor.title
    );
    Ok(((server, id_jag), StepResult::new(text).with("ID-JAG", claims)))
}

async fn redeem(
    client: &Client,
    vendor: &Vendor,
    server: &McpServer,
    id_jag: &IdJagView,
) -> Result<(AccessToken, StepResult)> {
    let token = client.redeem(server, id_jag, server.scopes.as_ref()).await?;
    let text = format!(
        "{}'s own authorization server honours it with a five-minute access token.",
        vendor.title
    );
    let claims = decoded(token.secret().expose())?;
    Ok((token, StepResult::new(text).with("access token", claims)))
}

async fn call(client: &Client, vendor: &Vendor, server: &McpServer) -> Result<((), StepResult)> {
    let service = ().serve(client.transport(server.clone())?).await?;
    let tools = service.list_all_tools().await?;
    let names: Vec<String> = tools.iter().map(|tool| tool.name.to_string()).collect();
    let (tool, arguments) = if vendor.name == "canvas" {
        let shape = json!({"kind": "circle", "x": 40, "y": 40, "label": "hello"});
        ("canvas_draw", json!({"canvas": "welcome", "shape": shape}))
    } else {
        ("note_write", json!({"title": "hello", "text": "written by an agent"}))
    };
    let Value::Object(arguments) = arguments else { bail!("the arguments are not an object") };
    let request = CallToolRequestParams::new(tool).with_arguments(arguments);
    let result = service.call_tool(request).await?;
    ensure!(result.is_error != Some(true), "{tool} says that it failed");
    service.cancel().await?;
    let text = format!(
        "Tools listed; {tool} needs more scope than the token had, so the client steps up \
         silently, and the call succeeds."
    );
    Ok(((), StepResult::new(text).with("tools", names.join(" "))))
}

async fn refused(company: &Company) -> Result<((), StepResult)> {
    let max = client(company);
    let name = sign_in(company, &max, &company.marketer).await?;
    let [canvas, notes] = company.vendors.as_slice() else { bail!("two vendors expected") };
    let notes = max.discover(&notes.url).await?;
    max.access_token(&notes).await?;
    let canvas = max.discover(&canvas.url).await?;
    let Err(Error::RefusedByPolicy { error, .. }) = max.access_token(&canvas).await else {
        bail!("{name} got Canvas, or was stopped by something else than the policy");
    };
    let rows = last_rows(company, 20).await?;
    let id = company.id_of(&company.marketer).await?;
    let row = rows
        .iter()
        .find(|row| row.outcome == "refused" && row.person == id)
        .ok_or_else(|| anyhow!("the refusal is not in the audit trail"))?;
    let detail = |name: &str| row.details.get(name).cloned().unwrap_or_default();
    ensure!(detail("reason") == "policy.not_assigned", "refused for {}", detail("reason"));
    let text = format!(
        "{name} ({}) gets Notes, but Canvas is refused: the connection is for engineering.",
        company.marketer.group
    );
    let result = StepResult::new(text)
        .with("client sees", error.error)
        .with("IT sees", format!("{}, decided by {}", detail("reason"), detail("rule")));
    Ok(((), result))
}

async fn replay(
    client: &Client,
    server: &McpServer,
    id_jag: &IdJagView,
) -> Result<((), StepResult)> {
    match client.redeem(server, id_jag, None).await {
        Err(Error::Refused { error, .. }) if error.error == "invalid_grant" => {
            let text = "An ID-JAG is good for one token: the same one again is refused.";
            Ok(((), StepResult::new(text).with("client sees", error.error)))
        }
        Err(error) => bail!("the replay was refused, but for another reason: {error}"),
        Ok(_) => bail!("the ID-JAG was honoured twice"),
    }
}

async fn cut_off(
    company: &Company,
    client: &Client,
    server: &McpServer,
) -> Result<((), StepResult)> {
    let session = client.session().await?.ok_or_else(|| anyhow!("nobody is signed in"))?;
    company.home().switch::<Users>(company.engineer.username, false).await?;
    let by_id_token = (SubjectTokenKind::IdToken, session.id_token.as_str());
    let outcomes =
        [client.exchange(server, None, by_id_token).await, client.id_jag(server, None).await];
    for outcome in outcomes {
        ensure!(outcome.is_err(), "an account that is switched off got an ID-JAG");
    }
    let text = match &company.upstream {
        None => {
            "IT switches Erin off; her next exchange fails at once, by ID token and by refresh token."
        }
        Some(_) => {
            "IT switches Erin off where she is, at Acme's own identity provider; it is asked whether she is still \
             there, and her next exchange fails, by ID token and by refresh token."
        }
    };
    Ok(((), StepResult::new(text).with("client sees", "invalid_grant: sign in again")))
}

async fn last_rows(company: &Company, limit: i64) -> Result<Vec<AuditRow>> {
    let filter = AuditFilter { limit, ..AuditFilter::default() };
    Ok(company.idp_store.audit(&filter).await?)
}

async fn audit(company: &Company) -> Result<((), StepResult)> {
    let mut rows = last_rows(company, 100).await?;
    rows.retain(|row| !row.event.starts_with("admin.create"));
    for (event, outcome) in [
        ("sign_in", "granted"),
        ("token_exchange", "granted"),
        ("token_exchange", "refused"),
        match company.upstream {
            None => ("admin.disable user", "granted"),
            Some(_) => ("upstream_check", "refused"),
        },
    ] {
        let there = rows.iter().any(|row| row.event == event && row.outcome == outcome);
        ensure!(there, "{event} {outcome} is not in the audit trail");
    }
    let mut redemptions = 0;
    for vendor in &company.vendors {
        let filter = AuditFilter { limit: 100, ..AuditFilter::default() };
        let rows = vendor.store.audit(&filter).await?;
        redemptions += rows.iter().filter(|row| row.event == "jwt_bearer").count();
    }
    let mut people = Vec::new();
    for person in [&company.engineer, &company.marketer] {
        people.push((company.id_of(person).await?, person.username));
    }
    let name = |id: &str| {
        let known = people.iter().find(|(held, _)| held == id);
        known.map_or_else(|| id.to_owned(), |(_, username)| (*username).to_owned())
    };
    let named: Vec<AuditRow> =
        rows.into_iter().map(|row| AuditRow { person: name(&row.person), ..row }).collect();
    let table = crate::admin::audit_table(&json!(named), false);
    let text = format!(
        "Every grant and refusal is on record: {} rows at the identity provider, {redemptions} \
         redemptions at the vendors.",
        named.len()
    );
    Ok(((), StepResult::new(text).with("trail", table)))
}
