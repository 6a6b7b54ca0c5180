//! Which crate may depend on which: the drawing of `docs/ARCHITECTURE.md` as a table that is checked.
//!
//! ```text
//! rustydb ──► flight ──► cluster ──► engine ──► storage ──► txn
//!    │                     udf ───────┘ ▲
//!    └───────► tpch ────────────────────┘        tests, benches: anything;  xtask: nothing
//! ```
//!
//! Invariant: an edge points down, so the graph has no cycle and each crate can be read knowing only those below it.
//! What a crate must not know of the outside world is in [`FENCES`]; what it needs from a crate above, it defines as a
//! trait that the upper crate implements. Development dependencies obey the same table.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Finding;
use crate::Result;

/// Each crate with the crates it may name. An edge missing here is a design decision: change the architecture page with it.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("rustydb-txn", &[]),
    ("rustydb-storage", &["rustydb-txn"]),
    ("rustydb-engine", &["rustydb-storage", "rustydb-txn"]),
    ("rustydb-udf", &["rustydb-engine"]),
    ("rustydb-cluster", &["rustydb-engine", "rustydb-storage", "rustydb-txn"]),
    ("rustydb-flight", &["rustydb-engine", "rustydb-cluster"]),
    ("rustydb-tpch", &["rustydb-engine"]),
    (
        "rustydb",
        &["rustydb-flight", "rustydb-cluster", "rustydb-udf", "rustydb-engine", "rustydb-storage", "rustydb-tpch"],
    ),
    (
        "rustydb-benches",
        &[
            "rustydb",
            "rustydb-flight",
            "rustydb-engine",
            "rustydb-storage",
            "rustydb-txn",
            "rustydb-tpch",
            "rustydb-udf",
        ],
    ),
    (
        "rustydb-tests",
        &[
            "rustydb",
            "rustydb-flight",
            "rustydb-cluster",
            "rustydb-udf",
            "rustydb-engine",
            "rustydb-storage",
            "rustydb-tpch",
        ],
    ),
    ("xtask", &[]),
];

/// A family of third-party crates that only some of ours may name.
struct Fence {
    /// Names, or prefixes ending in `*`.
    fenced: &'static [&'static str],
    rule: Rule,
    reason: &'static str,
}

enum Rule {
    /// Nobody but these.
    Only { packages: &'static [&'static str], in_tests: &'static [&'static str] },
    /// Everybody but these.
    Never { packages: &'static [&'static str] },
}

const FENCES: [Fence; 3] = [
    Fence {
        fenced: &["datafusion", "datafusion-*", "sqlparser"],
        rule: Rule::Never { packages: &["rustydb-storage", "rustydb-txn"] },
        reason: "storage and txn know neither SQL nor DataFusion",
    },
    Fence {
        fenced: &["tonic", "tonic-*", "prost", "prost-*", "arrow-flight"],
        rule: Rule::Only { packages: &["rustydb-flight", "rustydb-cluster"], in_tests: &["rustydb-tests"] },
        reason: "protocol types live in flight and cluster only",
    },
    Fence {
        fenced: &["tokio", "tokio-*", "object_store", "rustix", "arrow", "arrow-*", "parquet"],
        rule: Rule::Never { packages: &["rustydb-txn", "xtask"] },
        reason: "txn is a pure state machine without I/O, and xtask builds in seconds",
    },
];

/// A workspace member with what its manifest asks for.
#[derive(Debug)]
pub(super) struct Package {
    name: String,
    pub(super) directory: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Debug)]
struct Dependency {
    name: String,
    is_development: bool,
}

/// Reads the members out of `cargo metadata --no-deps`.
pub(super) fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let text = |value: &Value, field: &str| {
        value[field].as_str().map(str::to_owned).ok_or_else(|| format!("cargo metadata: no text in `{field}`"))
    };
    let list = |value: &Value, field: &str| {
        value[field].as_array().cloned().ok_or_else(|| format!("cargo metadata: no list in `{field}`"))
    };
    let mut packages = Vec::new();
    for package in list(metadata, "packages")? {
        let manifest = PathBuf::from(text(&package, "manifest_path")?);
        let mut dependencies = Vec::new();
        for dependency in list(&package, "dependencies")? {
            dependencies.push(Dependency {
                name: text(&dependency, "name")?,
                is_development: dependency["kind"].as_str() == Some("dev"),
            });
        }
        packages.push(Package {
            name: text(&package, "name")?,
            directory: manifest.parent().unwrap_or(Path::new("")).to_owned(),
            dependencies,
        });
    }
    Ok(packages)
}

/// Compares every dependency with the tables.
pub(super) fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            findings
                .push(finding(package, "a crate without a place in the table of xtask/src/tidy/edges.rs".to_owned()));
            continue;
        };
        for dependency in &package.dependencies {
            let is_member = packages.iter().any(|other| other.name == dependency.name);
            if is_member && !allowed.contains(&dependency.name.as_str()) {
                let message = format!("{} must not depend on {}: edges point down", package.name, dependency.name);
                findings.push(finding(package, message));
            }
            for fence in FENCES.iter().filter(|fence| fence.shuts_out(package, dependency)) {
                let message = format!("{} must not depend on {}: {}", package.name, dependency.name, fence.reason);
                findings.push(finding(package, message));
            }
        }
    }
    findings
}

impl Fence {
    fn shuts_out(&self, package: &Package, dependency: &Dependency) -> bool {
        let concerns = self.fenced.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => dependency.name.starts_with(prefix),
            None => dependency.name == *pattern,
        });
        let name = package.name.as_str();
        concerns
            && match self.rule {
                Rule::Only { packages, in_tests } => {
                    let permitted = packages.contains(&name) || (dependency.is_development && in_tests.contains(&name));
                    !permitted
                }
                Rule::Never { packages } => packages.contains(&name),
            }
    }
}

fn finding(package: &Package, message: String) -> Finding {
    Finding { place: package.directory.join("Cargo.toml").display().to_string(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages for one package of the given name with the given dependencies; `+name` marks a development one.
    fn messages(name: &str, dependencies: &[&str]) -> Vec<String> {
        let mut packages: Vec<Package> =
            ALLOWED.iter().filter(|(known, _)| *known != name).map(|(known, _)| package(known, &[])).collect();
        packages.push(package(name, dependencies));
        check(&packages).into_iter().map(|finding| finding.message).collect()
    }

    fn package(name: &str, dependencies: &[&str]) -> Package {
        let dependencies = dependencies
            .iter()
            .map(|name| match name.strip_prefix('+') {
                Some(name) => Dependency { name: name.to_owned(), is_development: true },
                None => Dependency { name: (*name).to_owned(), is_development: false },
            })
            .collect();
        Package { name: name.to_owned(), directory: PathBuf::from(name), dependencies }
    }

    #[test]
    fn an_edge_that_points_down_is_fine() {
        assert_eq!(messages("rustydb-engine", &["rustydb-storage", "datafusion", "+rustydb-txn"]), [""; 0]);
    }

    #[test]
    fn an_edge_that_points_up_is_found_even_for_tests() {
        assert_eq!(messages("rustydb-storage", &["rustydb-engine"]).len(), 1);
        assert_eq!(messages("rustydb-engine", &["+rustydb-flight"]).len(), 1);
    }

    #[test]
    fn storage_knows_no_sql() {
        assert_eq!(messages("rustydb-storage", &["datafusion-common", "+sqlparser"]).len(), 2);
    }

    #[test]
    fn protocol_crates_stay_in_flight_and_cluster_and_the_tests() {
        assert_eq!(messages("rustydb-flight", &["tonic", "prost", "arrow-flight"]), [""; 0]);
        assert_eq!(messages("rustydb-tests", &["+arrow-flight"]), [""; 0]);
        assert_eq!(messages("rustydb-tests", &["arrow-flight"]).len(), 1);
        assert_eq!(messages("rustydb", &["tonic"]).len(), 1);
    }

    #[test]
    fn txn_does_no_io() {
        assert_eq!(messages("rustydb-txn", &["tokio", "arrow-array", "parking_lot"]).len(), 2);
    }

    #[test]
    fn a_new_crate_must_be_given_its_place() {
        assert_eq!(messages("rustydb-console", &[]).len(), 1);
    }

    #[test]
    fn the_table_itself_has_no_cycle() {
        // Listed bottom up: every crate may name only crates that stand before it, but for the two that test all others.
        for (index, (name, allowed)) in ALLOWED.iter().enumerate() {
            for lower in *allowed {
                let place = ALLOWED.iter().position(|(known, _)| known == lower);
                assert!(place.is_some_and(|place| place < index), "{name} → {lower}");
            }
        }
    }

    #[test]
    fn packages_are_read_from_cargo_metadata() {
        let metadata = serde_json::json!({"packages": [{
            "name": "rustydb-txn", "manifest_path": "/w/txn/Cargo.toml",
            "dependencies": [{"name": "proptest", "kind": "dev"}, {"name": "thiserror", "kind": null}]
        }]});
        let packages = packages(&metadata).expect("the fixture is well formed");
        assert_eq!(packages[0].directory, PathBuf::from("/w/txn"));
        let kinds: Vec<_> =
            packages[0].dependencies.iter().map(|found| (found.name.as_str(), found.is_development)).collect();
        assert_eq!(kinds, [("proptest", true), ("thiserror", false)]);
        assert!(super::packages(&serde_json::json!({})).is_err());
    }
}
