//! Answers that list tools, prompts or resources: tools are learnt from them, and they are filtered
//! for the caller. What needs no change is forwarded byte for byte.

use crate::{
    canonical::{Members, canonical, object},
    gateway::Route,
    settings::{Lists, ToolChanges},
    snapshots::{Described, LARGEST, LONGEST_NAME, Learned},
};
use passavant_proto::{
    mcp::message::{Body, Target},
    mcp::operation_policy::ToolState,
    oauth::scope::Scopes,
    time::Timestamp,
};
use serde_json::value::RawValue;
use std::sync::Arc;

/// A list cannot be parsed, so it cannot be known to be harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// The filter through which one caller sees lists.
#[derive(Clone)]
pub(crate) struct ListFilter {
    route: Arc<Route>,
    scopes: Scopes,
    now: Timestamp,
    /// Ids of the requests for `tools/list`. Tools are learnt only from answers to one of them.
    asked: Arc<[String]>,
}

/// Ids of a body's `tools/list` requests, in canonical form.
pub(crate) fn asked(body: &Body<'_>) -> Arc<[String]> {
    let lists = body.messages.iter().filter(|message| message.method == "tools/list");
    lists.filter_map(|message| canonical(message.id?.get()).ok()).collect()
}

impl ListFilter {
    pub(crate) fn new(
        route: Arc<Route>,
        scopes: Scopes,
        asked: Arc<[String]>,
        now: Timestamp,
    ) -> Self {
        Self { route, scopes, now, asked }
    }

    /// Inspects the data of one event. Returns the data to send instead, if it has to change.
    pub(crate) fn look(&self, text: &str) -> Result<Option<String>, Unreadable> {
        // Most events of a stream list nothing.
        let lists = ["\"tools\"", "\"prompts\"", "\"resources\"", "\"resourceTemplates\""];
        // A member's name could be written with escapes: such data is inspected too.
        if !(lists.iter().any(|list| text.contains(list)) || text.contains("\\u")) {
            return Ok(None);
        }
        self.document(text)
    }

    /// Inspects one message or batch.
    pub(crate) fn document(&self, text: &str) -> Result<Option<String>, Unreadable> {
        if text.trim_start().starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Unreadable)?;
            let looked = items.iter().map(|item| self.message(item.get()));
            let looked: Vec<_> = looked.collect::<Result<_, _>>()?;
            if looked.iter().all(Option::is_none) {
                return Ok(None);
            }
            let items = items.iter().zip(looked);
            let items: Vec<_> =
                items.map(|(raw, new)| new.unwrap_or_else(|| raw.get().to_owned())).collect();
            return Ok(Some(format!("[{}]", items.join(","))));
        }
        self.message(text)
    }

    fn message(&self, text: &str) -> Result<Option<String>, Unreadable> {
        let message: Members<'_> = serde_json::from_str(text).map_err(|_| Unreadable)?;
        let Some(result) = message.get("result") else { return Ok(None) };
        if !result.get().starts_with('{') {
            return Ok(None);
        }
        let id = message.get("id").and_then(|id| canonical(id.get()).ok());
        let answers = id.is_some_and(|id| self.asked.contains(&id));
        let Some(new) = self.result(result.get(), answers)? else { return Ok(None) };
        Ok(Some(object(message.0.iter().map(|(name, value)| {
            (name.as_str(), if name == "result" { new.as_str() } else { value.get() })
        }))))
    }

    fn result(&self, text: &str, answers: bool) -> Result<Option<String>, Unreadable> {
        let Members(members) = serde_json::from_str(text).map_err(|_| Unreadable)?;
        let mut changed = false;
        let mut lists = false;
        let mut out: Vec<(&str, String)> = Vec::new();
        for (name, value) in &members {
            let kind = match name.as_str() {
                "tools" => Some(Kind::Tools { answers }),
                "prompts" => Some(Kind::Prompts),
                "resources" => Some(Kind::Resources),
                "resourceTemplates" => Some(Kind::Templates),
                _ => None,
            };
            let list = kind.filter(|_| value.get().starts_with('['));
            let new = match list {
                Some(kind) => {
                    lists = true;
                    self.list(kind, value.get())?
                }
                None => None,
            };
            changed |= new.is_some();
            out.push((name, new.unwrap_or_else(|| value.get().to_owned())));
        }
        if lists && self.route.settings.lists != Lists::All {
            // A list filtered for one caller must not be in a shared cache.
            for (name, value) in &mut out {
                if *name == "cacheScope" && value != "\"private\"" {
                    "\"private\"".clone_into(value);
                    changed = true;
                }
            }
        }
        Ok(changed.then(|| object(out.iter().map(|(name, value)| (*name, value.as_str())))))
    }

    fn list(&self, kind: Kind, text: &str) -> Result<Option<String>, Unreadable> {
        if text.len() > self.route.settings.limits.list {
            return Err(Unreadable);
        }
        let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Unreadable)?;
        let mut kept = Vec::new();
        let mut seen_first = Vec::new();
        for item in &items {
            let shows = match kind {
                Kind::Tools { answers } => self.tool(item.get(), answers, &mut seen_first)?,
                _ => self.shows(kind, item.get())?,
            };
            if shows {
                kept.push(item.get());
            }
        }
        if !seen_first.is_empty() {
            let names = seen_first.join(" ");
            self.route.trail.tool(self.now, &self.route.resource, &names, "seen first");
        }
        Ok((kept.len() < items.len()).then(|| format!("[{}]", kept.join(","))))
    }

    /// Learns a tool, if the answer was asked for, and judges it by this very description. A tool
    /// that differs from what was approved is recorded.
    fn tool(
        &self,
        item: &str,
        answers: bool,
        seen_first: &mut Vec<String>,
    ) -> Result<bool, Unreadable> {
        let route = &self.route;
        let settings = &route.settings;
        let block = settings.tool_changes == ToolChanges::Block;
        let told = |name: &str, detail| route.trail.tool(self.now, &route.resource, name, detail);
        let item = Described::read(item).ok_or(Unreadable)?;
        if answers {
            if let Some(news) = route.snapshots.overrun() {
                if news {
                    told(
                        "*",
                        "tool descriptions change too often to be reviewed: lists are refused",
                    );
                }
                return Err(Unreadable);
            }
            match route.snapshots.learn(&item) {
                Learned::Known | Learned::TooMany => {}
                Learned::New => seen_first.push(item.name.clone()),
                Learned::Changed if block => {
                    told(&item.name, "changed, and blocked until it is approved");
                }
                Learned::Changed => told(&item.name, "changed"),
            }
        }
        let state = route.snapshots.state_of(&item, block);
        // A blocked tool is never listed, whatever the setting of `lists`.
        Ok(state != ToolState::Changed
            && (settings.lists == Lists::All
                || settings.rules.shows(Target::Tool(&item.name), state, self.granted())))
    }

    /// The scopes that have to cover what is listed, if lists depend on scopes.
    fn granted(&self) -> Option<&Scopes> {
        match self.route.settings.lists {
            Lists::All | Lists::Allowed => None,
            Lists::Granted => Some(&self.scopes),
        }
    }

    fn shows(&self, kind: Kind, item: &str) -> Result<bool, Unreadable> {
        let settings = &self.route.settings;
        if item.len() > LARGEST {
            return Err(Unreadable);
        }
        let members: Members<'_> = serde_json::from_str(item).map_err(|_| Unreadable)?;
        let text = |member| members.text(member).unwrap_or_default();
        let name = match kind {
            Kind::Prompts | Kind::Tools { .. } => text("name"),
            Kind::Resources => text("uri"),
            Kind::Templates => {
                // The part before the first variable. If it ends in `/`, a placeholder name is
                // appended.
                let whole = text("uriTemplate");
                let fixed = whole.split('{').next().unwrap_or_default();
                format!("{fixed}{}", if fixed.ends_with('/') { "x" } else { "" })
            }
        };
        let target = match kind {
            Kind::Prompts | Kind::Tools { .. } if name.len() > LONGEST_NAME => {
                return Err(Unreadable);
            }
            Kind::Prompts | Kind::Tools { .. } => Target::Prompt(&name),
            Kind::Resources | Kind::Templates => Target::Resource(&name),
        };
        Ok(settings.lists == Lists::All
            || settings.rules.shows(target, ToolState::Unseen, self.granted()))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    /// The tools of the list, and whether the answer was asked for.
    Tools {
        answers: bool,
    },
    Prompts,
    Resources,
    Templates,
}
