//! MCP clients whose config formats are documented: where the config file is, and what an entry
//! looks like.

use super::edit::Format;
use passavant_host::{Places, quoted};
use serde_json::{Value, json};
use std::path::PathBuf;

/// One MCP client.
pub(super) struct McpClient {
    /// Its name as an argument of `passavant install`.
    pub(super) id: &'static str,
    /// Its name for people.
    pub(super) title: &'static str,
    /// The format of its config.
    pub(super) format: Format,
    /// The path of its MCP servers in the config.
    pub(super) path: &'static [&'static str],
    /// Its config files on this machine, whether they exist or not.
    pub(super) files: fn(&Places) -> Vec<PathBuf>,
    /// Programs by which it is detected, besides its config.
    pub(super) programs: &'static [&'static str],
    /// An entry for the bridge.
    pub(super) entry: fn(&Bridge) -> Value,
    /// Set if it has native cross-app access.
    pub(super) native: Option<Native>,
    /// What the person has to do for the change to take effect.
    pub(super) restart: &'static str,
}

/// The command that an MCP client starts.
pub(super) struct Bridge {
    /// The path of this program.
    pub(super) command: String,
    /// `connect URL`.
    pub(super) args: Vec<String>,
    /// Environment that it needs.
    pub(super) env: serde_json::Map<String, Value>,
    /// The name of the server for people.
    pub(super) title: String,
}

/// Native settings of a client with cross-app access.
pub(super) struct Native {
    /// The file with the settings of the identity provider, and its format.
    pub(super) settings: fn(&Places) -> PathBuf,
    pub(super) format: Format,
    /// Members to set in it: path, name, value; by issuer and client id.
    pub(super) idp: fn(&str, &str) -> Vec<(Vec<&'static str>, &'static str, Value)>,
    /// An entry for a server: URL, client id at its RAS.
    pub(super) entry: fn(&str, &str) -> Value,
    /// Whether issuer and servers have to be https, even on this machine.
    pub(super) needs_https: bool,
    /// What the person still has to do: secrets are never written into a config.
    pub(super) then: &'static str,
    /// The vendor's own commands, for a client that writes its settings itself. Arguments: the
    /// issuer, the client id there, and for each server its name, its URL and the client id at its
    /// authorization server.
    pub(super) commands: Option<fn(&str, &str, &[(String, &str, &str)]) -> String>,
}

/// The commands that set up Claude Code: it stores identity provider and secrets itself, and uses
/// cross-app access only if the variable is set.
fn claude_commands(issuer: &str, client_id: &str, servers: &[(String, &str, &str)]) -> String {
    let (issuer, client_id) = (quoted(issuer), quoted(client_id));
    let mut text = format!(
        "export CLAUDE_CODE_ENABLE_XAA=1   # also where you start it\n\
         read -rs MCP_XAA_IDP_CLIENT_SECRET && export MCP_XAA_IDP_CLIENT_SECRET   # type the secret of {client_id}\n\
         claude mcp xaa setup --issuer {issuer} --client-id {client_id} --client-secret\n"
    );
    for (name, url, own) in servers {
        let (name, url, own) = (quoted(name), quoted(url), quoted(own));
        text.push_str(&format!(
            "claude mcp add --scope user --transport http --xaa --client-id {own} --client-secret {name} {url}   # asks \
             for the secret of {own}\n"
        ));
    }
    text.push_str("claude mcp xaa login\n");
    text
}

const STRICT: Format = Format::Json { comments: false, trailing_commas: false };
const COMMENTS: Format = Format::Json { comments: true, trailing_commas: false };
const JSONC: Format = Format::Json { comments: true, trailing_commas: true };

/// `{command, args}`, and `env` if there is any.
fn plain(bridge: &Bridge) -> Value {
    let mut entry = json!({"command": bridge.command, "args": bridge.args});
    if !bridge.env.is_empty() {
        entry["env"] = Value::Object(bridge.env.clone());
    }
    entry
}

fn typed(bridge: &Bridge) -> Value {
    let mut entry = json!({"type": "stdio", "command": bridge.command, "args": bridge.args});
    if !bridge.env.is_empty() {
        entry["env"] = Value::Object(bridge.env.clone());
    }
    entry
}

fn goose(bridge: &Bridge) -> Value {
    json!({
        "enabled": true, "type": "stdio", "name": bridge.title,
        "description": format!("{} by way of Passavant", bridge.title),
        "cmd": bridge.command, "args": bridge.args, "envs": bridge.env, "timeout": 300,
    })
}

fn codex(bridge: &Bridge) -> Value {
    let mut entry = plain(bridge);
    // The first request may wait for a person in the browser.
    entry["startup_timeout_sec"] = 60.into();
    entry
}

fn vscode_folder(places: &Places) -> PathBuf {
    if let Some(portable) = places.env("VSCODE_PORTABLE") {
        return portable.join("user-data/User");
    }
    places.env("VSCODE_APPDATA").unwrap_or_else(|| places.config()).join("Code/User")
}

/// `command` contains the arguments, and `env` has another name.
fn opencode(bridge: &Bridge) -> Value {
    let command: Vec<&String> = std::iter::once(&bridge.command).chain(&bridge.args).collect();
    // The first request may wait for a person in the browser.
    let mut entry =
        json!({"type": "local", "command": command, "enabled": true, "timeout": 60_000});
    if !bridge.env.is_empty() {
        entry["environment"] = Value::Object(bridge.env.clone());
    }
    entry
}

fn copilot(bridge: &Bridge) -> Value {
    json!({"type": "local", "command": bridge.command, "args": bridge.args, "env": bridge.env, "tools": ["*"]})
}

fn cline(bridge: &Bridge) -> Value {
    let mut entry = plain(bridge);
    entry["disabled"] = false.into();
    entry
}

/// The files of an editor built from the same source, which has its own folder.
fn vscode_kin(places: &Places, name: &str) -> Vec<PathBuf> {
    vec![places.config().join(name).join("User/mcp.json")]
}

fn claude_desktop(places: &Places) -> Vec<PathBuf> {
    let file = "Claude/claude_desktop_config.json";
    if let Some(packages) = places.local_app_data().map(|local| local.join("Packages")) {
        // If it was installed from the store, its settings are in its package's folder.
        let found = std::fs::read_dir(packages).into_iter().flatten().flatten();
        let own: Vec<PathBuf> = found
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("Claude_"))
            .map(|entry| entry.path().join("LocalCache/Roaming").join(file))
            .collect();
        if own.len() == 1 {
            return own;
        }
    }
    vec![places.config().join(file)]
}

/// All clients that can be installed into.
pub(super) const CLIENTS: [McpClient; 16] = [
    McpClient {
        id: "claude-code",
        title: "Claude Code",
        format: STRICT,
        path: &["mcpServers"],
        files: |places| {
            let folder = places.env("CLAUDE_CONFIG_DIR").unwrap_or_else(|| places.home.clone());
            vec![folder.join(".claude.json")]
        },
        programs: &["claude"],
        entry: |bridge| {
            let mut entry = typed(bridge);
            entry["env"] = Value::Object(bridge.env.clone());
            entry
        },
        native: Some(Native {
            settings: |places| {
                let folder = places.env("CLAUDE_CONFIG_DIR");
                folder.unwrap_or_else(|| places.home.join(".claude")).join("settings.json")
            },
            format: STRICT,
            idp: |issuer, client_id| {
                vec![
                    (vec![], "xaaIdp", json!({"issuer": issuer, "clientId": client_id})),
                    (vec!["env"], "CLAUDE_CODE_ENABLE_XAA", json!("1")),
                ]
            },
            entry: |url, client_id| json!({"type": "http", "url": url, "oauth": {"clientId": client_id, "xaa": true}}),
            needs_https: true,
            then: "run `claude mcp xaa login`; it asks for the secrets that IT gave you and keeps them \
                   itself",
            commands: Some(claude_commands),
        }),
        restart: "start Claude Code anew",
    },
    McpClient {
        id: "claude-desktop",
        title: "Claude Desktop",
        format: STRICT,
        path: &["mcpServers"],
        files: claude_desktop,
        programs: &[],
        entry: plain,
        native: None,
        restart: "quit Claude Desktop wholly and start it again",
    },
    McpClient {
        id: "cursor",
        title: "Cursor",
        format: STRICT,
        path: &["mcpServers"],
        files: |places| vec![places.home.join(".cursor/mcp.json")],
        programs: &["cursor", "cursor-agent"],
        entry: plain,
        native: None,
        restart: "Cursor sees it at once, or after a restart",
    },
    McpClient {
        id: "vscode",
        title: "VS Code",
        format: JSONC,
        path: &["servers"],
        files: |places| vec![vscode_folder(places).join("mcp.json")],
        programs: &["code"],
        entry: typed,
        native: Some(Native {
            settings: |places| vscode_folder(places).join("settings.json"),
            format: JSONC,
            idp: |issuer, client_id| {
                vec![(
                    vec![],
                    "mcp.enterpriseManagedAuth.idp",
                    json!({"issuer": issuer, "clientId": client_id}),
                )]
            },
            entry: |url, client_id| {
                json!({"type": "http", "url": url,
                       "oauth": {"clientId": client_id, "enterpriseManaged": true}})
            },
            needs_https: false,
            then: "in mcp.json, use \"Set Client Secret\" above each server, with the secret that IT \
                   gave you; VS Code keeps it itself",
            commands: None,
        }),
        restart: "VS Code sees it at once",
    },
    McpClient {
        id: "windsurf",
        title: "Windsurf / Devin",
        format: STRICT,
        path: &["mcpServers"],
        files: |places| {
            let devin = if places.is_windows() {
                places.config().join("devin")
            } else {
                places.home.join(".config/devin")
            };
            let cascade = places.home.join(".codeium/windsurf");
            let there = [devin, cascade].into_iter().filter(|folder| folder.is_dir());
            there.map(|folder| folder.join("mcp_config.json")).collect()
        },
        programs: &[],
        entry: plain,
        native: None,
        restart: "refresh its MCP servers, or restart it",
    },
    McpClient {
        id: "codex",
        title: "Codex",
        format: Format::Toml,
        path: &["mcp_servers"],
        files: |places| {
            let folder = places.env("CODEX_HOME").unwrap_or_else(|| places.home.join(".codex"));
            vec![folder.join("config.toml")]
        },
        programs: &["codex"],
        entry: codex,
        native: None,
        restart: "start Codex anew",
    },
    McpClient {
        id: "gemini",
        title: "Gemini CLI",
        format: COMMENTS,
        path: &["mcpServers"],
        files: |places| {
            let home = places.env("GEMINI_CLI_HOME").unwrap_or_else(|| places.home.clone());
            vec![home.join(".gemini/settings.json")]
        },
        programs: &["gemini"],
        entry: plain,
        native: None,
        restart: "start Gemini CLI anew, in a trusted folder",
    },
    McpClient {
        id: "copilot",
        title: "GitHub Copilot CLI",
        format: STRICT,
        path: &["mcpServers"],
        files: |places| {
            let folder = places.env("COPILOT_HOME").unwrap_or_else(|| places.home.join(".copilot"));
            vec![folder.join("mcp-config.json")]
        },
        programs: &["copilot"],
        entry: copilot,
        native: None,
        restart: "start Copilot CLI anew",
    },
    McpClient {
        id: "opencode",
        title: "opencode",
        format: JSONC,
        path: &["mcp"],
        files: |places| {
            let folder = places.xdg_config().join("opencode");
            // The program reads both names; the person uses the one that exists.
            let commented = folder.join("opencode.jsonc");
            vec![if commented.is_file() { commented } else { folder.join("opencode.json") }]
        },
        programs: &["opencode"],
        entry: opencode,
        native: None,
        restart: "start opencode anew",
    },
    McpClient {
        id: "cline",
        title: "Cline",
        format: STRICT,
        path: &["mcpServers"],
        files: |places| {
            let own = places.env("CLINE_MCP_SETTINGS_PATH");
            let folder = places.env("CLINE_DIR").unwrap_or_else(|| places.home.join(".cline"));
            let command_line = folder.join("data/settings/cline_mcp_settings.json");
            let in_editor = "globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json";
            let in_editor = vscode_folder(places).join(in_editor);
            let there = |file: &PathBuf| file.parent().is_some_and(std::path::Path::is_dir);
            match own {
                Some(file) => vec![file],
                None if there(&in_editor) && !folder.is_dir() => vec![in_editor],
                None if there(&in_editor) => vec![command_line, in_editor],
                None => vec![command_line],
            }
        },
        programs: &["cline"],
        entry: cline,
        native: None,
        restart: "start Cline anew",
    },
    McpClient {
        id: "continue",
        title: "Continue",
        format: STRICT,
        path: &["mcpServers"],
        // A file of our own in its folder for such files, in the format it accepts from other
        // programs.
        files: |places| {
            let folder = places.env("CONTINUE_GLOBAL_DIR");
            let folder = folder.unwrap_or_else(|| places.home.join(".continue"));
            vec![folder.join("mcpServers/passavant.json")]
        },
        // Its command line does not read that folder; its editor extensions do.
        programs: &[],
        entry: plain,
        native: None,
        restart: "start Continue anew",
    },
    McpClient {
        id: "qwen",
        title: "Qwen Code",
        format: COMMENTS,
        path: &["mcpServers"],
        files: |places| vec![places.home.join(".qwen/settings.json")],
        programs: &["qwen"],
        entry: plain,
        native: None,
        restart: "start Qwen Code anew",
    },
    McpClient {
        id: "vscode-insiders",
        title: "VS Code Insiders",
        format: JSONC,
        path: &["servers"],
        files: |places| vscode_kin(places, "Code - Insiders"),
        programs: &["code-insiders"],
        entry: typed,
        native: None,
        restart: "VS Code Insiders sees it at once",
    },
    McpClient {
        id: "vscodium",
        title: "VSCodium",
        format: JSONC,
        path: &["servers"],
        files: |places| vscode_kin(places, "VSCodium"),
        programs: &["codium"],
        entry: typed,
        native: None,
        restart: "VSCodium sees it at once",
    },
    McpClient {
        id: "goose",
        title: "goose",
        format: Format::Yaml,
        path: &["extensions"],
        files: |places| {
            let folder = match places.env("GOOSE_PATH_ROOT").filter(|root| root.is_absolute()) {
                Some(root) => root.join("config"),
                None if places.is_windows() => places.config().join("Block/goose/config"),
                None => places.xdg_config().join("goose"),
            };
            vec![folder.join("config.yaml")]
        },
        programs: &[],
        entry: goose,
        native: None,
        restart: "start a new goose session",
    },
    McpClient {
        id: "zed",
        title: "Zed",
        format: JSONC,
        path: &["context_servers"],
        files: |places| {
            let folder = if places.is_windows() {
                places.config().join("Zed")
            } else if places.is_macos() {
                places.home.join(".config/zed")
            } else {
                let flatpak = places.env("FLATPAK_XDG_CONFIG_HOME");
                flatpak.unwrap_or_else(|| places.xdg_config()).join("zed")
            };
            vec![folder.join("settings.json")]
        },
        programs: &["zed", "zeditor"],
        entry: plain,
        native: None,
        restart: "Zed sees it at once",
    },
];

impl McpClient {
    /// Whether it is on this machine: its config, the config's folder, or its program exists.
    pub(super) fn is_found(&self, places: &Places) -> bool {
        let files = (self.files)(places);
        let own_folder = |file: &PathBuf| {
            // For a file directly in the home folder, the folder proves nothing. Some configs are
            // in a folder below the one that the program creates itself.
            let depth = match self.id {
                "continue" => 2,
                "cline" => 3,
                _ => 1,
            };
            file.ancestors()
                .nth(depth)
                .is_some_and(|folder| folder != places.home && folder.is_dir())
        };
        // Another program uses `~/.gemini`, too.
        let folders = self.id != "gemini";
        files.iter().any(|file| file.is_file() || (folders && own_folder(file)))
            || self.programs.iter().any(|program| places.has_program(program))
    }
}
