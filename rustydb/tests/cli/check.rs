//! `rustydb check` on sound, damaged and foreign directories.

use crate::support::{directory, run, run_with_input};
use std::path::{Path, PathBuf};

/// A closed database with rows in its log and in a segment.
fn store(directory: &Path) {
    let script = "CREATE TABLE t (id BIGINT PRIMARY KEY, text TEXT);
         INSERT INTO t SELECT value, 'row ' || CAST(value AS TEXT) FROM range(0, 5000);
         CREATE TABLE u AS SELECT value AS id FROM range(0, 1000);";
    run_with_input(directory, &["sql", "--data", "d"], script).expect_status(0);
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn a_sound_database_has_nothing_to_report() {
    let directory = directory();
    store(directory.path());
    let outcome = run(directory.path(), &["check", "--data", "d"]).expect_status(0);
    assert!(outcome.stdout.contains("no damage") && outcome.stdout.contains("2 tables"), "{}", outcome.stdout);
}

#[test]
fn a_flipped_byte_in_any_file_is_found_and_its_file_named() {
    let directory = directory();
    store(directory.path());
    let mut damaged = 0;
    for file in files(&directory.path().join("d")) {
        let sound = std::fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        if sound.is_empty() || name.to_lowercase().contains("lock") {
            continue;
        }
        let mut bytes = sound.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        std::fs::write(&file, &bytes).unwrap();
        let outcome = run(directory.path(), &["check", "--data", "d"]);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(matches!(outcome.status, Some(1 | 3)), "{name}: {:?} {said}", outcome.status);
        assert!(said.contains(name), "{name} is not named: {said}");
        std::fs::write(&file, &sound).unwrap();
        damaged += 1;
    }
    assert!(damaged >= 3, "a format, a manifest or log, and a segment");
    run(directory.path(), &["check", "--data", "d"]).expect_status(0);
}

#[test]
fn what_is_no_database_cannot_be_checked() {
    let directory = directory();
    run(directory.path(), &["check", "--data", "nowhere"]).expect_status(3).expect_stderr(&["nowhere"]);
    assert!(!directory.path().join("nowhere").exists());
    std::fs::create_dir(directory.path().join("photos")).unwrap();
    std::fs::write(directory.path().join("photos/cat.jpg"), "meow").unwrap();
    run(directory.path(), &["check", "--data", "photos"]).expect_status(3).expect_stderr(&["photos"]);
    assert_eq!(files(&directory.path().join("photos")).len(), 1, "nothing was put there");
}

#[test]
fn a_database_of_a_future_release_is_refused_and_left_alone() {
    let directory = directory();
    store(directory.path());
    let format = directory.path().join("d/FORMAT");
    std::fs::write(&format, "rustydb 4711\n").unwrap();
    let all = files(&directory.path().join("d"));
    for arguments in
        [&["check", "--data", "d"][..], &["sql", "--data", "d", "-c", "SELECT 1"], &["serve", "--data", "d"]]
    {
        run(directory.path(), arguments).expect_status(3).expect_stderr(&["4711"]);
    }
    assert_eq!(files(&directory.path().join("d")), all);
    assert_eq!(std::fs::read_to_string(&format).unwrap(), "rustydb 4711\n");
}
