//! A PostgreSQL server of our own: started in a scratch directory, on a Unix socket only, stopped at the end.
//!
//! It is tuned as its documentation advises for a machine of its own ("Resource Consumption", "WAL Configuration"): a quarter
//! of the memory for shared buffers, checkpoints spread out and rare, no log records for replicas. What decides whether a
//! commit survives a crash stays on: `fsync`, `synchronous_commit`, `full_page_writes`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What to do if there is none.
const INSTALL: &str =
    "there is no PostgreSQL here; install it (apt-get install postgresql), or leave it out with --peers";

/// A running server.
#[derive(Debug)]
pub struct PostgresServer {
    binaries: PathBuf,
    directory: PathBuf,
    user: Option<&'static str>,
}

impl PostgresServer {
    /// Creates a cluster in `directory`, which must not exist, and starts a server on it.
    pub fn start(directory: &Path) -> io::Result<PostgresServer> {
        let binaries = find_binaries().ok_or_else(|| io::Error::other(INSTALL))?;
        // A server refuses to run as root; Debian's package brings a user for it.
        let user = is_root()?.then_some("postgres");
        fs::create_dir_all(directory)?;
        let server = PostgresServer { binaries, directory: directory.to_owned(), user };
        if let Some(user) = user {
            run(Command::new("chown").arg(user).arg(directory))?;
        }
        let data = server.data();
        run(server
            .command("initdb")
            .args(["--auth=trust", "--username=postgres", "--no-locale", "--encoding=UTF8", "-D"])
            .arg(&data))?;
        let settings: String = server.settings().iter().map(|(name, value)| format!(" -c {name}={value}")).collect();
        let log = directory.join("log");
        run(server
            .command("pg_ctl")
            .arg("-D")
            .arg(&data)
            .arg("-l")
            .arg(&log)
            .arg("-w")
            .arg("-o")
            .arg(settings)
            .arg("start"))?;
        Ok(server)
    }

    /// The socket that clients connect to.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(".s.PGSQL.5432")
    }

    /// `postgres (PostgreSQL) 15.…`.
    pub fn version(&self) -> String {
        let output = Command::new(self.binaries.join("postgres")).arg("--version").output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    }

    /// What differs from the server's defaults.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let memory_mb = machine_memory_mb();
        vec![
            ("listen_addresses", "''".to_owned()),
            ("unix_socket_directories", self.directory.display().to_string()),
            ("max_connections", "100".to_owned()),
            ("shared_buffers", format!("{}MB", memory_mb / 4)),
            ("effective_cache_size", format!("{}MB", memory_mb * 3 / 4)),
            ("wal_level", "minimal".to_owned()),
            ("max_wal_senders", "0".to_owned()),
            ("wal_buffers", "64MB".to_owned()),
            ("min_wal_size", "4GB".to_owned()),
            ("max_wal_size", "16GB".to_owned()),
            ("checkpoint_timeout", "15min".to_owned()),
            ("checkpoint_completion_target", "0.9".to_owned()),
            ("random_page_cost", "1.1".to_owned()),
            ("jit", "off".to_owned()),
            ("fsync", "on".to_owned()),
            ("synchronous_commit", "on".to_owned()),
            ("full_page_writes", "on".to_owned()),
        ]
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = self.binaries.join(program);
        let mut command = match self.user {
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir(&self.directory);
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let mut stop = self.command("pg_ctl");
        // Should it fail, the message is on standard error, and there is nobody to hand it to.
        if let Err(error) = run(stop.arg("-D").arg(self.data()).args(["-m", "fast", "-w", "stop"])) {
            eprintln!("{error}");
        }
    }
}

/// Runs a program to its end; what it says is in the error if it fails.
fn run(command: &mut Command) -> io::Result<()> {
    // The server inherits standard output; a pipe would never end.
    let log = std::env::temp_dir().join(format!("rustydb-bench-postgres-{}.log", std::process::id()));
    let file = fs::File::create(&log)?;
    let status = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).status()?;
    let said = fs::read_to_string(&log).unwrap_or_default();
    fs::remove_file(&log)?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?} failed: {said}"))) }
}

/// Where Debian, or the path, has the newest server.
fn find_binaries() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    let on_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let candidates = versions.into_iter().rev().map(|(_, path)| path).chain(on_path);
    candidates.into_iter().find(|path| path.join("initdb").is_file() && path.join("pg_ctl").is_file())
}

fn is_root() -> io::Result<bool> {
    let output = Command::new("id").arg("-u").output()?;
    Ok(output.stdout.trim_ascii() == b"0")
}

fn machine_memory_mb() -> u64 {
    let reported = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = reported
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    total.map_or(4_096, |kilobytes| kilobytes / 1_024)
}
