//! `passavant demo`: a whole company on this machine.

mod browser;
mod company;
mod vendors;
mod walk;

use anyhow::{Result, bail};
use clap::Args;
use company::Company;
use passavant_admin::types::Users;
use passavant_host::shutdown_signal;
use walk::Walk;

#[derive(Args)]
#[allow(clippy::struct_excessive_bools)] // options of a command
pub(crate) struct Demo {
    /// End after the walk; exit 0 only if every step succeeded
    #[arg(long)]
    once: bool,
    /// Print the walk as JSON
    #[arg(long)]
    json: bool,
    /// Serve https with a private certificate authority
    #[arg(long)]
    tls: bool,
    /// Put Passavant in front of the identity provider that Acme has: people sign in there
    #[arg(long)]
    upstream: bool,
    /// First of six consecutive ports, of eight with --upstream [default: any free]
    #[arg(long)]
    port: Option<u16>,
}

pub(crate) async fn run(args: Demo) -> Result<()> {
    // First, so that nothing of it stays when somebody ends it.
    let mut told_to_stop = shutdown_signal()?;
    let folder = tempfile::Builder::new().prefix("passavant-demo-").tempdir()?;
    let company = tokio::select! {
        company = company::start(&args, folder.path()) => company?,
        () = &mut told_to_stop => bail!("it was ended before it was there"),
    };
    if !args.json {
        println!(
            "Acme's identity provider is at {}; its people use two MCP servers:",
            company.idp_issuer
        );
        for vendor in &company.vendors {
            println!("  {:<7} {}  governed by {}", vendor.title, vendor.url, vendor.issuer);
        }
        if let Some(upstream) = &company.upstream {
            println!(
                "\nIt stands in front of the one that Acme has had all along, {}: people and their groups are\n\
                 there, passwords are typed there alone.",
                upstream.issuer
            );
        }
        println!();
    }
    let mut walk = Walk::new(args.json);
    let taken = tokio::select! {
        taken = walk::take(&company, &mut walk) => taken,
        () = &mut told_to_stop => {
            company.stop().await;
            bail!("it was ended before its walk was");
        }
    };
    if args.json {
        println!("{}", passavant_host::json_text(&walk.to_json())?);
    }
    if args.once || taken.is_err() {
        company.stop().await;
        if !walk.ok() {
            bail!("a step of the demo failed");
        }
        return Ok(());
    }
    play(&company).await?;
    told_to_stop.await;
    // Installed entries would point to a server that is gone.
    if let Err(error) = passavant_desk::install::take_out(&folder.path().join("home")) {
        eprintln!(
            "warning: what was installed from this demo could not be taken out: {}",
            passavant_host::told(&error)
        );
    }
    company.stop().await;
    Ok(())
}

/// Says where to sign in and what to try.
async fn play(company: &Company) -> Result<()> {
    company.home().switch::<Users>(company.engineer.username, true).await?;
    company.write_secrets()?;
    let folder = company.folder.display();
    let [canvas, _] = company.vendors.as_slice() else { bail!("two vendors expected") };
    let roots = match &company.ca_file {
        Some(file) => format!("  export PASSAVANT_EXTRA_ROOTS={}\n", file.display()),
        None => String::new(),
    };
    eprintln!(
        "\nErin is switched on again, and everything stays up until Ctrl-C. In another terminal:

{path}{roots}  export PASSAVANT_HOME={folder}/home
  passavant login --issuer {idp} --insecure-storage
  passavant servers
  passavant install --all         # into Claude Code, Codex, Cursor …; taken out again when this ends
  passavant tools {canvas_url}
  passavant call {canvas_url} canvas_read '{{\"canvas\": \"welcome\"}}'
  passavant admin --url {admin} --secret-file {folder}/admin.secret audit
  passavant admin --url {admin} --secret-file {folder}/admin.secret user disable erin

Sign in as {erin} with the password {erin_password}
        or {max} with the password {max_password}",
        path = match passavant_host::folder_off_path() {
            Some(folder) => format!("  export PATH=\"{}:$PATH\"\n", folder.display()),
            None => String::new(),
        },
        idp = company.idp_issuer,
        canvas_url = canvas.url,
        admin = company.admin_url,
        erin = company.engineer.username,
        erin_password = company.engineer.password.expose(),
        max = company.marketer.username,
        max_password = company.marketer.password.expose(),
    );
    Ok(())
}
