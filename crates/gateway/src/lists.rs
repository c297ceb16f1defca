//! Answers that list tools, prompts or resources: learnt from, and filtered for their reader. What needs no
//! change goes on byte for byte.

use crate::{
    gateway::Route,
    settings::{Lists, ToolChanges},
    snapshots::Learned,
};
use carnet_proto::{mcp::Target, operation_policy::ToolState, scope::Scopes, time::Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};
use std::{fmt, sync::Arc};

/// A list could not be read, so that it cannot be known to be harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// How one caller sees lists.
#[derive(Clone)]
pub(crate) struct Lens {
    route: Arc<Route>,
    scopes: Scopes,
    now: Timestamp,
}

/// An object's members in order, as written.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, _>()? {
                    // A reader may take either of two.
                    if members.iter().any(|(held, _): &(String, _)| *held == member.0) {
                        return Err(serde::de::Error::custom("a member occurs twice"));
                    }
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

fn written<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let members: Vec<_> =
        members.map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
    format!("{{{}}}", members.join(","))
}

impl Lens {
    pub(crate) fn new(route: Arc<Route>, scopes: Scopes, now: Timestamp) -> Self {
        Self { route, scopes, now }
    }

    /// Looks at one message or batch; what comes back is to be sent in its stead.
    pub(crate) fn look(&self, text: &str) -> Result<Option<String>, Unreadable> {
        // Most events of a stream list nothing.
        let lists = ["\"tools\"", "\"prompts\"", "\"resources\"", "\"resourceTemplates\""];
        // A name could be written with escapes: then it is looked at too.
        if !(lists.iter().any(|list| text.contains(list)) || text.contains("\\u")) {
            return Ok(None);
        }
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
        let Members(message) = serde_json::from_str(text).map_err(|_| Unreadable)?;
        let result = message.iter().find(|(name, _)| name == "result");
        let Some((_, result)) = result else { return Ok(None) };
        if !result.get().starts_with('{') {
            return Ok(None);
        }
        let Some(new) = self.result(result.get())? else { return Ok(None) };
        Ok(Some(written(message.iter().map(|(name, value)| {
            (name.as_str(), if name == "result" { new.as_str() } else { value.get() })
        }))))
    }

    fn result(&self, text: &str) -> Result<Option<String>, Unreadable> {
        let Members(members) = serde_json::from_str(text).map_err(|_| Unreadable)?;
        let mut changed = false;
        let mut lists = false;
        let mut out: Vec<(&str, String)> = Vec::new();
        for (name, value) in &members {
            let kind = match name.as_str() {
                "tools" => Some(Kind::Tools),
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
            // What one caller sees is not for another's cache.
            for (name, value) in &mut out {
                if *name == "cacheScope" && value != "\"private\"" {
                    "\"private\"".clone_into(value);
                    changed = true;
                }
            }
        }
        Ok(changed.then(|| written(out.iter().map(|(name, value)| (*name, value.as_str())))))
    }

    fn list(&self, kind: Kind, text: &str) -> Result<Option<String>, Unreadable> {
        let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Unreadable)?;
        let mut kept = Vec::with_capacity(items.len());
        let mut news = false;
        let mut seen_first = Vec::new();
        for item in &items {
            let value: Value = serde_json::from_str(item.get()).map_err(|_| Unreadable)?;
            if matches!(kind, Kind::Tools) {
                let learned = self.learn(&value);
                news |= learned != Learned::Known;
                if learned == Learned::New {
                    seen_first.extend(value.get("name").and_then(Value::as_str).map(str::to_owned));
                }
            }
            if self.shows(kind, &value) {
                kept.push(item.get());
            }
        }
        if !seen_first.is_empty() {
            let names = seen_first.join(" ");
            self.route.trail.tool(self.now, &self.route.resource, &names, "seen first");
        }
        if news {
            self.route.keep_snapshots();
        }
        Ok((kept.len() < items.len()).then(|| format!("[{}]", kept.join(","))))
    }

    /// Takes a tool in; what is not as approved is put on record.
    fn learn(&self, tool: &Value) -> Learned {
        let route = &self.route;
        let block = route.settings.tool_changes == ToolChanges::Block;
        let learned = route.snapshots.learn(tool);
        let name = tool.get("name").and_then(Value::as_str).unwrap_or_default();
        let told = |detail| route.trail.tool(self.now, &route.resource, name, detail);
        match learned {
            Learned::Known | Learned::New => {}
            Learned::Changed if block => told("changed, and blocked until it is approved"),
            Learned::Changed => told("changed"),
            Learned::Restored => told("as approved again"),
        }
        learned
    }

    fn shows(&self, kind: Kind, item: &Value) -> bool {
        let settings = &self.route.settings;
        let scopes = match settings.lists {
            Lists::All | Lists::Allowed => None,
            Lists::Granted => Some(&self.scopes),
        };
        let text = |member| item.get(member).and_then(Value::as_str).unwrap_or_default();
        let some_name;
        let (target, state) = match kind {
            Kind::Tools => {
                let name = text("name");
                let state = self.route.tool_state(name);
                // What is blocked is not shown, whatever lists show otherwise.
                if state == ToolState::Changed {
                    return false;
                }
                (Target::Tool(name), state)
            }
            Kind::Prompts => (Target::Prompt(text("name")), ToolState::Unseen),
            Kind::Resources => (Target::Resource(text("uri")), ToolState::Unseen),
            Kind::Templates => {
                // What is before the first variable, with some name where it ends in a folder.
                let fixed = text("uriTemplate").split('{').next().unwrap_or_default();
                some_name = format!("{fixed}{}", if fixed.ends_with('/') { "x" } else { "" });
                (Target::Resource(&some_name), ToolState::Unseen)
            }
        };
        settings.lists == Lists::All || settings.rules.shows(target, state, scopes)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Tools,
    Prompts,
    Resources,
    Templates,
}
