//! `rustydb init`: a database that is safe to reach over the network from its first start on.

use super::certificates::{Certificates, Role, write};
use super::{CommandError, Exit, describe, print, runtime};
use clap::Args;
use rustydb::{Database, DatabaseOptions, random_password};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Create a database with an administrator and certificates
///
/// Creates the database in --data, its first user, a certificate authority with a certificate for the server (in the
/// directory's tls/), and a configuration file for `rustydb serve`. A password that was not given is made up and printed
/// once; the database keeps only its hash.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rustydb init
  rustydb init --data /var/lib/rustydb --host db.example.com
  rustydb init --administrator ann --password-file ann.txt
  rustydb init --client ann --client backup         mutual TLS: clients must show a certificate

Afterwards:
  rustydb serve --config ./rustydb-data/rustydb.toml
  RUSTYDB_PASSWORD=… rustydb sql --url grpc+tls://localhost:50051 --user admin \\
      --ca-certificate ./rustydb-data/tls/ca.pem

Exit status:
  0  done
  1  it broke off half way; the directory can be removed
  2  the command line is not valid, or the database has users already
  3  the database could not be opened")]
pub(crate) struct Arguments {
    /// Directory of the database
    #[arg(long, value_name = "DIR", default_value = "./rustydb-data")]
    data: PathBuf,

    /// Name of the first user
    #[arg(long, value_name = "NAME", default_value = "admin")]
    administrator: String,

    /// File whose first line is the administrator's password [default: one is made up]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// Name or address the server is reached by, for its certificate; may be given several times
    /// [default: localhost, 127.0.0.1 and ::1]
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,

    /// Make a client's certificate, and have the server ask for one; may be given several times
    #[arg(long = "client", value_name = "NAME")]
    clients: Vec<String>,
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, CommandError> {
    check(&arguments)?;
    let password = match &arguments.password_file {
        Some(path) => super::first_line(path, "password")?,
        None => random_password(),
    };
    create_administrator(&arguments, &password)?;

    // The configuration is read from anywhere.
    let data = arguments.data.canonicalize().map_err(CommandError::failed)?;
    let tls = data.join("tls");
    let failed = |error: std::io::Error| CommandError::Failed(format!("{}: {error}", tls.display()));
    let certificates = Certificates::create(&tls).map_err(failed)?;
    let defaults = || ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let hosts = if arguments.hosts.is_empty() { defaults() } else { arguments.hosts.clone() };
    certificates.sign("server", Role::Server, &hosts).map_err(failed)?;
    for client in &arguments.clients {
        certificates.sign(client, Role::Client, std::slice::from_ref(client)).map_err(failed)?;
    }
    let configuration = data.join("rustydb.toml");
    write(&configuration, &configuration_text(&data, &tls, !arguments.clients.is_empty()), 0o644)
        .map_err(|error| CommandError::Failed(format!("{}: {error}", configuration.display())))?;
    print(&summary(&arguments, &password, &configuration, &tls))
}

/// What can be wrong is found before anything is made.
fn check(arguments: &Arguments) -> Result<(), CommandError> {
    for client in &arguments.clients {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_taken = matches!(client.as_str(), "ca" | "server");
        if client.is_empty() || is_taken || client.starts_with('.') || !client.chars().all(is_plain) {
            let message = format!("--client \"{client}\" cannot be a file's name: use letters, digits, - and _");
            return Err(CommandError::Usage(message));
        }
    }
    for host in &arguments.hosts {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        let name = host.strip_prefix("*.").unwrap_or(host);
        let is_name = !name.is_empty() && !name.starts_with(['-', '.']) && name.chars().all(is_plain);
        if !is_name && host.parse::<std::net::IpAddr>().is_err() {
            let message = format!("--host \"{host}\" is neither a host's name nor an IP address");
            return Err(CommandError::Usage(message));
        }
    }
    for name in ["tls", "rustydb.toml"] {
        let path = arguments.data.join(name);
        if path.exists() {
            return Err(CommandError::Usage(format!("{} exists already", path.display())));
        }
    }
    Ok(())
}

fn create_administrator(arguments: &Arguments, password: &str) -> Result<(), CommandError> {
    let quoted = |text: &str, quote: char| {
        let doubled = text.replace(quote, &format!("{quote}{quote}"));
        format!("{quote}{doubled}{quote}")
    };
    runtime()?.block_on(async {
        let options = DatabaseOptions::directory(&arguments.data);
        let database = Database::open(options).await.map_err(|error| CommandError::cannot_open(&error))?;
        if database.has_users() {
            let directory = arguments.data.display();
            return Err(CommandError::Usage(format!("the database in {directory} has users already")));
        }
        let (name, password) = (quoted(&arguments.administrator, '"'), quoted(password, '\''));
        let sql = format!("CREATE USER {name} PASSWORD {password} SUPERUSER");
        let created = database.connect().execute(&sql, &[]).await.map(drop);
        let closed = database.close().await;
        created.map_err(|error| CommandError::Usage(describe(&error)))?;
        closed.map_err(|error| CommandError::failed(describe(&error)))
    })
}

fn configuration_text(data: &Path, tls: &Path, is_mutual: bool) -> String {
    let quoted = |path: &Path| toml::Value::from(path.display().to_string()).to_string();
    let mut text = format!(
        "# Made by `rustydb init`. All settings: rustydb serve --print-config\n\
         data = {}\n\n\
         [flight]\n\
         address = \"127.0.0.1:50051\"\n\
         tls_certificate = {}\n\
         tls_key = {}\n",
        quoted(data),
        quoted(&tls.join("server.pem")),
        quoted(&tls.join("server.key")),
    );
    if is_mutual {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "tls_client_ca = {}", quoted(&tls.join("ca.pem")));
    }
    text
}

/// A name of the server that is in its certificate, as a URL has it.
fn reached_by(hosts: &[String]) -> String {
    match hosts.iter().find(|host| !host.starts_with("*.")) {
        Some(host) if host.contains(':') => format!("[{host}]"),
        Some(host) => host.clone(),
        None => "localhost".to_owned(),
    }
}

fn summary(arguments: &Arguments, password: &str, configuration: &Path, tls: &Path) -> String {
    let mut text = format!("administrator: {}\n", arguments.administrator);
    if arguments.password_file.is_none() {
        let _ = writeln!(text, "password: {password}");
        text += "The password is not shown again, and kept only as a hash.\n";
    }
    let _ = writeln!(text, "\nserve:   rustydb serve --config {}", configuration.display());
    let _ = write!(
        text,
        "connect: rustydb sql --url grpc+tls://{}:50051 --user {} --ca-certificate {}",
        reached_by(&arguments.hosts),
        arguments.administrator,
        tls.join("ca.pem").display()
    );
    if let Some(client) = arguments.clients.first() {
        let path = |extension: &str| tls.join(format!("{client}.{extension}")).display().to_string();
        let _ = write!(text, " --client-certificate {} --client-key {}", path("pem"), path("key"));
    }
    text + "\n"
}
