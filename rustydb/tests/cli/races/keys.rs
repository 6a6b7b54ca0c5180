//! Everybody inserts the same keys: exactly one gets each, whatever keeps it unique.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::{CLIENTS, Client, Failure, RETRYABLE, race};

const SET_UP: &str = "
    CREATE TABLE by_primary_key (k bigint PRIMARY KEY, owner bigint NOT NULL);
    CREATE TABLE by_unique (owner bigint PRIMARY KEY, k bigint UNIQUE);
    CREATE TABLE by_expression (owner bigint PRIMARY KEY, k text);
    CREATE UNIQUE INDEX by_expression_k ON by_expression (lower(k));
    CREATE TABLE do_nothing (k bigint PRIMARY KEY, owner bigint NOT NULL);
    CREATE TABLE do_update (k bigint PRIMARY KEY, visits int NOT NULL);";

/// What the clients were told.
#[derive(Default)]
struct Ledger {
    /// By table and key: who got it.
    owners: HashMap<(&'static str, u64), u64>,
    /// Keys that somebody else had.
    taken: Vec<(&'static str, u64)>,
    /// By key: how often it was counted.
    visits: HashMap<u64, u64>,
}

impl Ledger {
    fn note(&mut self, table: &'static str, key: u64, owner: u64, got: bool) {
        match got {
            true => {
                let before = self.owners.insert((table, key), owner);
                assert_eq!(before, None, "{table}: key {key} was given to {owner}, too");
            }
            false => self.taken.push((table, key)),
        }
    }
}

/// The statement that tries to get a key.
fn attempt(table: &str, key: u64, owner: u64) -> String {
    match table {
        "by_unique" => format!("INSERT INTO by_unique VALUES ({owner}, {key})"),
        // Each client spells it in its own way.
        "by_expression" if owner.is_multiple_of(2) => format!("INSERT INTO by_expression VALUES ({owner}, 'Key{key}')"),
        "by_expression" => format!("INSERT INTO by_expression VALUES ({owner}, 'kEY{key}')"),
        "do_nothing" => format!("INSERT INTO do_nothing VALUES ({key}, {owner}) ON CONFLICT (k) DO NOTHING"),
        _ => format!("INSERT INTO {table} VALUES ({key}, {owner})"),
    }
}

/// Whether this client got the key.
async fn get(client: &Client, level: Option<&str>, table: &str, key: u64, owner: u64) -> Result<bool, Failure> {
    let sql = attempt(table, key, owner);
    loop {
        let result = match level {
            None => client.run(&sql).await.map(|answer| answer.changed),
            Some(level) => {
                client.run(&format!("BEGIN ISOLATION LEVEL {level}")).await?;
                match client.step(&sql).await {
                    Ok(answer) => client.step("COMMIT").await.map(|_| answer.changed),
                    Err(failure) => Err(failure),
                }
            }
        };
        match result {
            Ok(changed) => return Ok(changed == 1),
            Err(failure) if failure.is(&["23505"]) => return Ok(false),
            Err(failure) if level.is_some() && failure.is(&RETRYABLE) => {}
            Err(failure) => return Err(failure),
        }
    }
}

async fn take_keys(client: Client, ledger: Arc<Mutex<Ledger>>) -> Result<(), Failure> {
    for n in 0.. {
        client.keep_house(n).await?;
        // The same keys for all, and each client a different level at each.
        let key = (client.round.number + 1) * 1_000 + n;
        let levels = [None, Some("READ COMMITTED"), Some("REPEATABLE READ"), Some("SERIALIZABLE")];
        let level = levels[usize::try_from((client.number + n) % 4).unwrap()];
        for table in ["by_primary_key", "by_unique", "by_expression", "do_nothing"] {
            let owner = client.unique(n);
            let got = get(&client, level, table, key, owner).await?;
            ledger.lock().unwrap().note(table, key, owner, got);
        }
        let count = format!(
            "INSERT INTO do_update VALUES ({key}, 1) ON CONFLICT (k) DO UPDATE SET visits = do_update.visits + 1"
        );
        client.run(&count).await?;
        *ledger.lock().unwrap().visits.entry(key).or_default() += 1;
        client.acknowledged();
    }
    Ok(())
}

async fn verify(client: Client, ledger: Arc<Mutex<Ledger>>) -> Result<(), Failure> {
    let mut owners: HashMap<(&str, u64), Vec<u64>> = HashMap::new();
    for table in ["by_primary_key", "by_unique", "by_expression", "do_nothing"] {
        let key = if table == "by_expression" { "CAST(substr(k, 4) AS bigint)" } else { "k" };
        for row in client.run(&format!("SELECT {key}, owner FROM {table}")).await?.rows {
            owners.entry((table, row[0].parse().unwrap())).or_default().push(row[1].parse().unwrap());
        }
    }
    let visits = client.run("SELECT k, visits FROM do_update").await?.rows;
    let ledger = ledger.lock().unwrap();
    for (place, found) in &owners {
        assert_eq!(found.len(), 1, "{place:?} has several owners: {found:?}");
    }
    for (place, owner) in &ledger.owners {
        assert_eq!(owners.get(place), Some(&vec![*owner]), "{place:?}");
    }
    for place in &ledger.taken {
        assert!(owners.contains_key(place), "{place:?} was refused for the sake of a row that is not there");
    }
    let found: HashMap<u64, u64> =
        visits.iter().map(|row| (row[0].parse().unwrap(), row[1].parse().unwrap())).collect();
    for (key, counted) in &ledger.visits {
        let found = found.get(key).copied().unwrap_or_default();
        assert!(found >= *counted && found <= CLIENTS, "key {key}: {found} visits, {counted} were acknowledged");
    }
    Ok(())
}

#[test]
fn exactly_one_client_gets_each_key() {
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    race(SET_UP, |client| take_keys(client, Arc::clone(&ledger)), |client| verify(client, Arc::clone(&ledger)));
}
