//! The `rustydb` binary: everything is in [`cli`]; this file only turns its answer into an exit status.
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | the command line: arguments, help, exit statuses, one file per subcommand |
//! | [`config`] | the settings of `serve`: flags, environment, file, defaults |
//! | [`shell`] | the SQL shell under `rustydb sql`: prompt, script runner, result formats |

mod cli;
mod config;
mod shell;

use std::process::ExitCode;

/// Queries allocate and free large buffers from all threads. The system's allocator gives the memory back to the kernel
/// each time, and then pays for clearing the pages again: some 7 % of TPC-H.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
