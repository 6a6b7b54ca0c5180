//! Parents go while children come: none is ever left without.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::{Client, Failure, race};

const PARENTS: u64 = 4;

const SET_UP: &str = "
    CREATE TABLE parent (id int PRIMARY KEY, code text UNIQUE);
    CREATE TABLE child (id bigint PRIMARY KEY, parent int REFERENCES parent);
    CREATE TABLE named (id bigint PRIMARY KEY, code text REFERENCES parent (code));
    CREATE TABLE leaf (id bigint PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
    CREATE TABLE late (id bigint PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO parent SELECT n, 'c' || n FROM generate_series(0, 3) s(n);";

/// Children that were acknowledged and that nobody deletes.
type Ledger = Arc<Mutex<HashSet<String>>>;

async fn come_and_go(mut client: Client, ledger: Ledger) -> Result<(), Failure> {
    let levels = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];
    for n in 0.. {
        client.keep_house(n).await?;
        let (parent, id) = (client.random.below(PARENTS), client.unique(n));
        let sql = match client.random.below(9) {
            0 => format!("DELETE FROM parent WHERE id = {parent}"),
            1 => format!("INSERT INTO parent VALUES ({parent}, 'c{parent}')"),
            2 => format!("UPDATE parent SET code = 'd' || id WHERE id = {parent}"),
            3 => format!("UPDATE child SET parent = {parent} WHERE id % 7 = {}", n % 7),
            4 => format!("INSERT INTO named VALUES ({id}, 'c{parent}')"),
            5 => format!("INSERT INTO leaf VALUES ({id}, {parent})"),
            6 => format!("INSERT INTO late VALUES ({id}, {parent})"),
            // Makes room for the parent to go.
            7 => format!("UPDATE child SET parent = NULL WHERE parent = {parent}"),
            _ => format!("INSERT INTO child VALUES ({id}, {parent})"),
        };
        let level = levels[usize::try_from(client.random.below(3)).unwrap()];
        match client.transaction(level, std::slice::from_ref(&sql)).await {
            Ok(()) => {
                if sql.starts_with("INSERT INTO child") {
                    ledger.lock().unwrap().insert(id.to_string());
                }
                client.acknowledged();
            }
            Err(failure) if failure.is(&["23503", "23505", "40001", "40P01"]) => {}
            Err(failure) => return Err(failure),
        }
        if n % 5 == 0 {
            no_orphans(&client).await?;
        }
    }
    Ok(())
}

async fn no_orphans(client: &Client) -> Result<(), Failure> {
    for (child, column, referred) in
        [("child", "parent", "id"), ("named", "code", "code"), ("leaf", "parent", "id"), ("late", "parent", "id")]
    {
        let orphans = format!(
            "SELECT c.id, c.{column} FROM {child} AS c LEFT JOIN parent AS p ON p.{referred} = c.{column} \
             WHERE c.{column} IS NOT NULL AND p.id IS NULL"
        );
        assert_eq!(client.run(&orphans).await?.rows, Vec::<Vec<String>>::new(), "{child} without parents");
    }
    Ok(())
}

async fn verify(client: Client, ledger: Ledger) -> Result<(), Failure> {
    no_orphans(&client).await?;
    let there: HashSet<String> = client.run("SELECT id FROM child").await?.rows.into_iter().flatten().collect();
    let lost: Vec<String> = ledger.lock().unwrap().difference(&there).cloned().collect();
    assert_eq!(lost, Vec::<String>::new(), "children that were acknowledged");
    Ok(())
}

#[test]
fn no_child_is_ever_without_its_parent() {
    let ledger = Ledger::default();
    race(SET_UP, |client| come_and_go(client, Arc::clone(&ledger)), |client| verify(client, Arc::clone(&ledger)));
}
