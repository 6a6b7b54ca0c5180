//! Bank transfers: the sum stays the same, and every account is what its transfers make of it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::{Client, Failure, RETRYABLE, race};

const ACCOUNTS: u64 = 6;

const SET_UP: &str = "
    CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL);
    CREATE TABLE transfers (id bigint PRIMARY KEY, source int NOT NULL, target int NOT NULL, amount int NOT NULL);
    INSERT INTO accounts SELECT n, 100 FROM generate_series(0, 5) s(n);";

/// `lock` is what a balance is read with.
fn transfers_race(level: &'static str, lock: &'static str) {
    let ledger = Arc::new(Mutex::new(HashSet::new()));
    let work = |mut client: Client| {
        let ledger = Arc::clone(&ledger);
        async move {
            for n in 0.. {
                client.keep_house(n).await?;
                let id = client.unique(n);
                let (source, target) = (client.random.below(ACCOUNTS), client.random.below(ACCOUNTS));
                let amount = client.random.below(50);
                loop {
                    match transfer(&client, level, lock, id, (source, target, amount)).await {
                        Ok(()) => break,
                        Err(failure) if failure.is(&RETRYABLE) => {}
                        Err(failure) => return Err(failure),
                    }
                }
                ledger.lock().unwrap().insert(id.to_string());
                client.acknowledged();
                assert_eq!(client.value("SELECT sum(balance) FROM accounts").await?, "600", "{level}");
            }
            Ok(())
        }
    };
    race(SET_UP, work, |client| verify(client, Arc::clone(&ledger)));
}

async fn transfer(
    client: &Client,
    level: &str,
    lock: &str,
    id: u64,
    (source, target, amount): (u64, u64, u64),
) -> Result<(), Failure> {
    client.run(&format!("BEGIN ISOLATION LEVEL {level}")).await?;
    client.step(&format!("INSERT INTO transfers VALUES ({id}, {source}, {target}, {amount})")).await?;
    // The client computes the balances, so that a change in between is lost unless the level or the lock prevents it.
    let amount = i64::try_from(amount).unwrap();
    for (account, change) in [(source, -amount), (target, amount)] {
        let found = client.step(&format!("SELECT balance FROM accounts WHERE id = {account} {lock}")).await?;
        let balance: i64 = found.rows[0][0].parse().unwrap();
        client.step(&format!("UPDATE accounts SET balance = {} WHERE id = {account}", balance + change)).await?;
    }
    client.step("COMMIT").await.map(drop)
}

async fn verify(client: Client, ledger: Arc<Mutex<HashSet<String>>>) -> Result<(), Failure> {
    assert_eq!(client.value("SELECT sum(balance) FROM accounts").await?, "600");
    let wrong = "SELECT a.id, a.balance FROM accounts AS a WHERE a.balance <> 100 \
                 - coalesce((SELECT sum(t.amount) FROM transfers AS t WHERE t.source = a.id), 0) \
                 + coalesce((SELECT sum(t.amount) FROM transfers AS t WHERE t.target = a.id), 0)";
    assert_eq!(
        client.run(wrong).await?.rows,
        Vec::<Vec<String>>::new(),
        "accounts that their transfers do not explain"
    );
    let there: HashSet<String> = client.run("SELECT id FROM transfers").await?.rows.into_iter().flatten().collect();
    let lost: Vec<String> = ledger.lock().unwrap().difference(&there).cloned().collect();
    assert_eq!(lost, Vec::<String>::new(), "transfers that were acknowledged");
    Ok(())
}

#[test]
fn transfers_at_snapshot_keep_the_sum() {
    transfers_race("REPEATABLE READ", "");
}

#[test]
fn transfers_at_serializable_keep_the_sum() {
    transfers_race("SERIALIZABLE", "");
}

#[test]
fn transfers_at_read_committed_keep_the_sum_if_they_lock_what_they_read() {
    transfers_race("READ COMMITTED", "FOR UPDATE");
}
