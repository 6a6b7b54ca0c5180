//! # Functions and procedures of the users' own
//!
//! This crate will hold the runtimes of code that users bring into the database: SQL functions, a procedural language
//! compatible with PL/pgSQL, and WebAssembly. It holds no code yet, because the engine does not yet accept `CREATE
//! FUNCTION` (it is refused with SQLSTATE 0A000), and a runtime without a way in would be a stub.
//!
//! What is fixed already, so that the engine leaves room for it:
//!
//! - **The way in is the engine's.** `engine` parses `CREATE FUNCTION`, keeps the definition in the catalog and checks who
//!   may call it. What it needs from here (compile this definition; call it with these Arrow columns) it will define as
//!   a trait; this crate implements it once per language, and the binary hands the implementations over when a database
//!   is opened.
//! - **Whole columns in, whole columns out.** A scalar function is called with Arrow arrays, not row by row; the
//!   procedural language is the exception, and its statements go through the engine's row path.
//! - **Nothing runs without limits.** Time, memory and depth are bounded per call, a failing function fails its
//!   statement and never the process, and an error names the line in the function's own text.
//! - **Edges.** This crate knows the engine's interface and no protocol; nothing below it knows this crate.
