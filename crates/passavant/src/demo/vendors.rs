//! The demo's two MCP servers: a design-canvas store and a notes store. Small, persistent, and
//! useful enough to play with.

use anyhow::Result;
use axum::{Router, http::request::Parts};
use passavant_proto::secret::sha256;
use passavant_resource::{Caller, Guard};
use rmcp::{
    ErrorData, Json, ServerHandler,
    handler::server::{tool::Extension, wrapper::Parameters},
    tool, tool_handler, tool_router,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// Maximum number of entries on one shelf, and maximum length of an entry's text.
const MOST: usize = 1000;
const LONGEST: usize = 100_000;

/// Named entries in a JSON file, which is replaced completely at each write.
struct Shelf<T> {
    file: PathBuf,
    entries: Mutex<BTreeMap<String, T>>,
}

impl<T: Clone + Serialize + DeserializeOwned> Shelf<T> {
    fn open(file: PathBuf) -> Result<Self> {
        let entries = if file.exists() {
            serde_json::from_slice(&std::fs::read(&file)?)?
        } else {
            BTreeMap::new()
        };
        Ok(Self { file, entries: Mutex::new(entries) })
    }

    fn read<R>(&self, read: impl FnOnce(&BTreeMap<String, T>) -> R) -> R {
        read(&self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the entries. When it returns they are on disk, or unchanged after an error.
    fn change<R>(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, T>) -> Result<R, ErrorData>,
    ) -> Result<R, ErrorData> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = entries.clone();
        let answer = change(&mut changed)?;
        if changed.len() > MOST {
            return Err(invalid(format!("there are {MOST} entries already; no more fit")));
        }
        self.save(&changed).map_err(|e| ErrorData::internal_error(e.to_string(), None))?;
        *entries = changed;
        Ok(answer)
    }

    fn save(&self, entries: &BTreeMap<String, T>) -> Result<()> {
        let folder = self.file.parent().unwrap_or(std::path::Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(entries)?)?;
        file.as_file().sync_all()?;
        file.persist(&self.file)?;
        Ok(())
    }
}

fn invalid(text: impl Into<String>) -> ErrorData {
    ErrorData::invalid_params(text.into(), None)
}

fn caller(parts: &Parts) -> Result<Caller, ErrorData> {
    // The guard admits nobody without a caller. If it is missing, there is no guard, and the
    // request fails.
    let caller = parts.extensions.get::<Caller>().cloned();
    caller.ok_or_else(|| ErrorData::internal_error("this server runs without its guard", None))
}

fn checked(name: &str, text: &str, what: &str) -> Result<(), ErrorData> {
    if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
        return Err(invalid(format!("`{what}` must have 1 to 100 printable characters")));
    }
    if text.len() > LONGEST {
        return Err(invalid(format!("the text is longer than {LONGEST} bytes")));
    }
    Ok(())
}

/// A rectangle, circle or text on a canvas.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Shape {
    /// `rectangle`, `circle` or `text`
    kind: String,
    /// Left edge
    x: i32,
    /// Upper edge
    y: i32,
    /// What is written on it
    #[serde(default)]
    label: String,
}

/// A design shared by everyone at the company.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Design {
    /// In drawing order
    shapes: Vec<Shape>,
    /// Who drew last
    edited_by: String,
}

#[derive(Deserialize, JsonSchema)]
struct Named {
    /// Name of the canvas
    canvas: String,
}

#[derive(Deserialize, JsonSchema)]
struct Draw {
    /// Name of the canvas; it is made if there is none
    canvas: String,
    /// What to add
    shape: Shape,
}

#[derive(Serialize, JsonSchema)]
struct Names {
    names: Vec<String>,
}

#[derive(Clone)]
struct Canvas(Arc<Shelf<Design>>);

#[tool_router]
impl Canvas {
    /// Lists the canvases.
    #[tool(name = "canvas_list", annotations(read_only_hint = true))]
    async fn list(&self) -> Json<Names> {
        Json(Names { names: self.0.read(|all| all.keys().cloned().collect()) })
    }

    /// Shows the shapes of a canvas.
    #[tool(name = "canvas_read", annotations(read_only_hint = true))]
    async fn read(&self, Parameters(ask): Parameters<Named>) -> Result<Json<Design>, ErrorData> {
        let found = self.0.read(|all| all.get(&ask.canvas).cloned());
        found.map(Json).ok_or_else(|| {
            invalid(format!("there is no canvas `{}`; canvas_list names them", ask.canvas))
        })
    }

    /// Adds a shape to a canvas.
    #[tool(name = "canvas_draw", annotations(read_only_hint = false, destructive_hint = false))]
    async fn draw(
        &self,
        Parameters(ask): Parameters<Draw>,
        Extension(parts): Extension<Parts>,
    ) -> Result<Json<Design>, ErrorData> {
        let caller = caller(&parts)?;
        checked(&ask.canvas, &ask.shape.label, "canvas")?;
        self.0.change(|all| {
            let design = all.entry(ask.canvas).or_default();
            if design.shapes.len() >= MOST {
                return Err(invalid(format!("a canvas holds {MOST} shapes at most")));
            }
            design.shapes.push(ask.shape);
            caller.subject().clone_into(&mut design.edited_by);
            Ok(Json(design.clone()))
        })
    }
}

#[tool_handler(name = "canvas", instructions = "Designs shared by everyone at the company.")]
impl ServerHandler for Canvas {}

/// A note of one person.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Note {
    /// Title
    title: String,
    /// Text
    text: String,
}

#[derive(Deserialize, JsonSchema)]
struct Titled {
    /// Title of the note
    title: String,
}

#[derive(Deserialize, JsonSchema)]
struct Search {
    /// Words to look for in titles and texts
    words: String,
}

#[derive(Serialize, JsonSchema)]
struct Found {
    notes: Vec<Note>,
}

/// Each person has their own notes: an entry's name is a hash of the person and the title.
#[derive(Clone)]
struct Notes(Arc<Shelf<Note>>);

fn shelf_key(caller: &Caller, title: &str) -> String {
    format!("{} {title}", owner(caller))
}

fn owner(caller: &Caller) -> String {
    sha256(format!("{}\n{}", caller.issuer(), caller.subject()).as_bytes())
}

#[tool_router]
impl Notes {
    /// Finds your notes that contain all the words; no words find them all.
    #[tool(name = "note_search", annotations(read_only_hint = true))]
    async fn search(
        &self,
        Parameters(ask): Parameters<Search>,
        Extension(parts): Extension<Parts>,
    ) -> Result<Json<Found>, ErrorData> {
        let owner = owner(&caller(&parts)?);
        let words: Vec<String> = ask.words.split_whitespace().map(str::to_lowercase).collect();
        let fits = |note: &Note| {
            let text = format!("{} {}", note.title, note.text).to_lowercase();
            words.iter().all(|word| text.contains(word))
        };
        let notes = self.0.read(|all| {
            let own = all.iter().filter(|(key, _)| key.starts_with(&owner));
            own.map(|(_, note)| note).filter(|note| fits(note)).cloned().collect()
        });
        Ok(Json(Found { notes }))
    }

    /// Reads one of your notes.
    #[tool(name = "note_read", annotations(read_only_hint = true))]
    async fn read(
        &self,
        Parameters(ask): Parameters<Titled>,
        Extension(parts): Extension<Parts>,
    ) -> Result<Json<Note>, ErrorData> {
        let key = shelf_key(&caller(&parts)?, &ask.title);
        let found = self.0.read(|all| all.get(&key).cloned());
        found.map(Json).ok_or_else(|| {
            invalid(format!("you have no note `{}`; note_search finds them", ask.title))
        })
    }

    /// Writes one of your notes, in place of the one with the same title.
    #[tool(name = "note_write", annotations(read_only_hint = false, idempotent_hint = true))]
    async fn write(
        &self,
        Parameters(note): Parameters<Note>,
        Extension(parts): Extension<Parts>,
    ) -> Result<Json<Note>, ErrorData> {
        checked(&note.title, &note.text, "title")?;
        let key = shelf_key(&caller(&parts)?, &note.title);
        self.0.change(|all| {
            all.insert(key, note.clone());
            Ok(Json(note))
        })
    }
}

#[tool_handler(name = "notes", instructions = "Your own notes; nobody else sees them.")]
impl ServerHandler for Notes {}

/// The canvas server behind its guard.
pub(crate) fn canvas(file: PathBuf, guard: &Guard, stop: CancellationToken) -> Result<Router> {
    let canvas = Canvas(Arc::new(Shelf::open(file)?));
    Ok(guarded(
        guard,
        StreamableHttpService::new(
            move || Ok(canvas.clone()),
            Arc::new(LocalSessionManager::default()),
            transport(stop),
        ),
    ))
}

/// The notes server behind its guard.
pub(crate) fn notes(file: PathBuf, guard: &Guard, stop: CancellationToken) -> Result<Router> {
    let notes = Notes(Arc::new(Shelf::open(file)?));
    Ok(guarded(
        guard,
        StreamableHttpService::new(
            move || Ok(notes.clone()),
            Arc::new(LocalSessionManager::default()),
            transport(stop),
        ),
    ))
}

fn transport(stop: CancellationToken) -> StreamableHttpServerConfig {
    // The guard checks Host and Origin.
    StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .with_json_response(true)
        .with_cancellation_token(stop)
}

fn guarded<S>(guard: &Guard, service: StreamableHttpService<S, LocalSessionManager>) -> Router
where
    S: ServerHandler + Send + 'static,
{
    Router::new().route_service("/mcp", service).layer(guard.clone()).merge(guard.metadata())
}
